//! What users have received and read: kept by the store, told to the user's
//! other devices.

use delivery::members::StoreFailure;
use delivery::receipts::{Ack, Receipts};
use protocol::UserId;
use protocol::frame::Receipt;

use crate::Edge;
use crate::registry::Command;

impl Edge {
    /// Keeps an acknowledgement, and tells the user's other connections if it
    /// moved what is read. `except` is the connection that it came from.
    pub(crate) async fn acknowledge(
        &self,
        receipts: &dyn Receipts,
        ack: Ack,
        except: Option<u64>,
    ) -> Result<Receipt, StoreFailure> {
        let (user, device, channel) = (ack.user.clone(), ack.device.clone(), ack.channel.clone());
        let acked = receipts.ack(ack).await?;
        let unread = match acked.unread {
            Some(unread) => self.hub().complete_unread(&unread, &user),
            None => 0,
        };
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
