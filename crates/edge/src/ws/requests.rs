//! The requests of a client that write something: publish, signal, ack.

use std::sync::Arc;

use delivery::publish::{Publication, Publisher};
use delivery::receipts::Ack;
use delivery::signal::Signal;
use protocol::frame::{self, Presence, ServerBody};
use protocol::{Channel, ErrorCode, ServerFrame};

use super::publishes::{Outcome, Refusal, Waiting};
use super::replies::{error, forbidden, limited, refused, store_error};
use super::session::{Answer, Session};
use crate::auth::{Action, Caller};

impl Session {
    pub(super) fn publish(
        &mut self,
        req: u32,
        publish: frame::Publish,
        out: &mut Vec<ServerFrame>,
    ) {
        let frame::Publish {
            id,
            channel,
            kind,
            data,
            traceparent,
        } = publish;
        let most = self.edge.config().limits.message_bytes;
        if data.len() > most {
            let message = format!("a message has at most {most} bytes of data");
            out.push(error(req, ErrorCode::TooLarge, message, Some(channel)));
            return;
        }
        if let Err(refused) = self.edge.admission().publish(&self.grants.user) {
            out.push(limited(req, refused, Some(channel)));
            return;
        }
        let membership = match self.grants.may_publish(&channel) {
            true => None,
            false => match self.ask_right(&channel, Action::Publish) {
                Some(membership) => Some(membership),
                None => {
                    out.push(forbidden(req, "publishing to", channel));
                    return;
                }
            },
        };
        let user = self.grants.user.clone();
        let publication = Publication {
            channel: channel.clone(),
            id: id.clone(),
            publisher: Publisher::User(user.clone()),
            kind,
            sender: Some(user),
            data,
            traceparent,
        };
        let backplane = Arc::clone(self.edge.publish());
        let of = channel.clone();
        let work = Box::pin(async move {
            let member = match membership {
                None => Ok(true),
                Some(membership) => membership.await,
            };
            let result = match member {
                Ok(true) => backplane
                    .publish(publication)
                    .await
                    .map_err(Refusal::Publish),
                Ok(false) => Err(Refusal::Forbidden),
                Err(failure) => Err(Refusal::Unknown(failure)),
            };
            Outcome {
                req,
                channel: of,
                id,
                result,
            }
        });
        self.publishes.push(Waiting { channel, work });
    }

    /// Signals go to those who listen now, from whoever may publish there or
    /// listens to the same room.
    pub(super) fn signal(
        &mut self,
        req: u32,
        signal: frame::SendSignal,
        out: &mut Vec<ServerFrame>,
    ) {
        let frame::SendSignal {
            channel,
            kind,
            data,
        } = signal;
        let Some(signals) = self.edge.signals().cloned() else {
            let message = "this edge passes no signals on";
            out.push(error(req, ErrorCode::Unsupported, message, Some(channel)));
            return;
        };
        // A room that is subscribed to without a claim in the token is one
        // whose membership was checked, and is ended when that ends. Unless
        // the application may have allowed to read it, and no more.
        let in_room = channel.namespace() == delivery::members::ROOM_NAMESPACE
            && self.feed.is_subscribed(&channel)
            && !self.grants.may_subscribe(&channel)
            && self.edge.auth().authorizer().is_none();
        let right = match self.grants.may_publish(&channel) || in_room {
            true => None,
            false => match self.ask_right(&channel, Action::Publish) {
                Some(right) => Some(right),
                None => {
                    out.push(forbidden(req, "signalling to", channel));
                    return;
                }
            },
        };
        let most = self.edge.config().limits.message_bytes;
        if data.len() > most {
            let message = format!("a signal has at most {most} bytes of data");
            out.push(error(req, ErrorCode::TooLarge, message, Some(channel)));
            return;
        }
        if let Err(refused) = self.edge.admission().publish(&self.grants.user) {
            out.push(limited(req, refused, Some(channel)));
            return;
        }
        let sender = Some(self.grants.user.clone());
        self.ask(Box::pin(async move {
            let refused = match right {
                None => None,
                Some(right) => match right.await {
                    Ok(true) => None,
                    Ok(false) => Some(forbidden(req, "signalling to", channel.clone())),
                    Err(failure) => Some(store_error(req, &failure, Some(channel.clone()))),
                },
            };
            if refused.is_some() {
                return Answer::Reply(refused);
            }
            let sent = signals
                .send(Signal {
                    channel: channel.clone(),
                    kind,
                    sender,
                    data,
                })
                .await;
            Answer::Reply(sent.err().map(|_| {
                error(
                    req,
                    ErrorCode::Unavailable,
                    "the signal was not sent",
                    Some(channel),
                )
            }))
        }));
    }

    /// Asks all edges, so it answers when they have.
    pub(super) fn presence(&mut self, req: u32, channel: Channel) {
        let edge = self.edge.clone();
        let caller = Caller::User(self.grants.clone());
        self.ask(Box::pin(async move {
            let frame = match edge.presence(&caller, &channel).await {
                Ok(present) => ServerFrame::reply(
                    req,
                    ServerBody::Presence(Presence {
                        channel,
                        users: present.users.into_iter().collect(),
                        partial: present.partial,
                    }),
                ),
                Err(problem) => refused(req, &problem, channel),
            };
            Answer::Reply(Some(frame))
        }));
    }

    pub(super) fn ack(&mut self, req: u32, ack: frame::Ack, out: &mut Vec<ServerFrame>) {
        let frame::Ack {
            channel,
            delivered,
            read,
        } = ack;
        let refused = match (self.edge.receipts(), &self.device) {
            (None, _) => Some((
                ErrorCode::Unsupported,
                "this edge has no store, so it keeps no receipts",
            )),
            (Some(_), None) => Some((
                ErrorCode::BadRequest,
                "an ack needs a device named in connect",
            )),
            (Some(_), Some(_)) => None,
        };
        if let Some((code, message)) = refused {
            out.push(error(req, code, message, Some(channel)));
            return;
        }
        let (Some(receipts), Some(device)) = (self.edge.receipts().cloned(), self.device.clone())
        else {
            return;
        };
        if !self.grants.may_subscribe(&channel) && !self.feed.is_subscribed(&channel) {
            out.push(forbidden(req, "acknowledging", channel));
            return;
        }
        let edge = self.edge.clone();
        let connection = self.id();
        let user = self.grants.user.clone();
        self.ask(Box::pin(async move {
            let ack = Ack {
                user,
                device,
                channel: channel.clone(),
                delivered,
                read,
            };
            let acknowledged = edge.acknowledge(&*receipts, ack, Some(connection), req != 0);
            let receipt = match acknowledged.await {
                Ok(receipt) => receipt,
                Err(failure) => {
                    return Answer::Reply(Some(store_error(req, &failure, Some(channel))));
                }
            };
            Answer::Reply((req != 0).then(|| ServerFrame::reply(req, ServerBody::Receipt(receipt))))
        }));
    }
}
