//! What users have received and read: kept by the store, told to the user's
//! other devices, and where a device that remembers nothing goes on.

use std::time::Duration;

use delivery::members::StoreFailure;
use delivery::receipts::{Ack, Receipts};
use delivery::{PageError, Start};
use protocol::frame::Receipt;
use protocol::{Channel, Device, ErrorCode, UserId};

use crate::Edge;
use crate::registry::Command;

/// When a lookup that was refused is worth another try.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Edge {
    /// Where `from=acked` starts: after what the device has acknowledged as
    /// delivered, else at the tail. The error is for the client.
    pub(crate) fn acked_start(
        &self,
        user: &UserId,
        device: Option<&Device>,
        channel: &Channel,
    ) -> Result<Start, (ErrorCode, &'static str)> {
        let Some(receipts) = self.receipts().cloned() else {
            let message = "from=acked needs an edge with a store";
            return Err((ErrorCode::Unsupported, message));
        };
        let Some(device) = device.cloned() else {
            let message = "from=acked needs a device, named in connect or in the query";
            return Err((ErrorCode::BadRequest, message));
        };
        let (user, channel) = (user.clone(), channel.clone());
        // New messages only, if it never acknowledged anything: those from now on.
        let head = self.hub().head_of(&channel);
        Ok(Start::Lookup(Box::pin(async move {
            let position = receipts.position(user, device, channel).await;
            let unavailable = |retry_after, reason| PageError::Unavailable {
                retry_after,
                reason,
            };
            match position {
                Ok(position) => Ok(position.unwrap_or(head)),
                Err(StoreFailure::Unavailable {
                    retry_after,
                    reason,
                }) => Err(unavailable(retry_after, reason)),
                Err(StoreFailure::Refused { reason }) => Err(unavailable(RETRY_AFTER, reason)),
            }
        })))
    }

    /// Keeps an acknowledgement, and tells the user's other connections if it
    /// moved what is read. `except` is the connection that it came from. Where
    /// nobody is told and nobody waits for the answer, nothing is counted.
    pub(crate) async fn acknowledge(
        &self,
        receipts: &dyn Receipts,
        ack: Ack,
        except: Option<u64>,
        is_answered: bool,
    ) -> Result<Receipt, StoreFailure> {
        let (user, device, channel) = (ack.user.clone(), ack.device.clone(), ack.channel.clone());
        let acked = receipts.ack(ack).await?;
        let unread = match acked.unread {
            Some(unread) => Some(unread),
            None if is_answered => Some(receipts.unread(user.clone(), channel.clone()).await?),
            None => None,
        };
        let unread = unread.map_or(0, |unread| self.hub().complete_unread(&unread, &user));
        let receipt = Receipt {
            channel,
            device: Some(device),
            delivered: acked.delivered,
            read: acked.read,
            unread,
        };
        if acked.read_moved {
            self.tell_devices(&user, except, &receipt).await;
        }
        Ok(receipt)
    }

    /// Passes a receipt on to the user's other connections: here at once, and
    /// through the backplane to the other edges.
    async fn tell_devices(&self, user: &UserId, except: Option<u64>, receipt: &Receipt) {
        self.tell_devices_here(user, except, receipt);
        if let Some(controls) = self.controls() {
            crate::remote::send_receipt(self, controls, user, receipt).await;
        }
    }

    pub(crate) fn tell_devices_here(&self, user: &UserId, except: Option<u64>, receipt: &Receipt) {
        for connection in self.registry().of(user) {
            if Some(connection.id()) != except {
                connection.send(Command::Receipt(Box::new(receipt.clone())));
            }
        }
    }
}
