//! Anomalies, put into good histories. Each function says whether the history could hold it.

use std::sync::Arc;

use protocol::Cursor;
use protocol::frame::ResetReason;
use torture::history::{ClientId, Event, What};

use crate::good::{Run, channel};

pub(crate) type Mutation = fn(&mut Run, u64) -> bool;

/// One of the positions that satisfy a condition, by seed.
fn pick(run: &Run, seed: u64, fits: impl Fn(usize, &Event) -> bool) -> Option<usize> {
    let all: Vec<usize> = run
        .events
        .iter()
        .enumerate()
        .filter(|(at, event)| fits(*at, event))
        .map(|(at, _)| at)
        .collect();
    let index = usize::try_from(seed % all.len().max(1) as u64).ok()?;
    all.get(index).copied()
}

fn client_of(event: &Event) -> Option<ClientId> {
    match &event.what {
        What::Subscribe { client, .. }
        | What::Subscribed { client, .. }
        | What::Received { client, .. }
        | What::Live { client, .. }
        | What::Moved { client, .. }
        | What::Reset { client, .. }
        | What::Disconnected { client } => Some(*client),
        _ => None,
    }
}

/// The next thing that happens to the same client.
fn next_of(run: &Run, at: usize) -> Option<usize> {
    let client = client_of(&run.events[at])?;
    (at + 1..run.events.len()).find(|it| client_of(&run.events[*it]) == Some(client))
}

fn received(event: &Event) -> Option<(ClientId, Cursor)> {
    match &event.what {
        What::Received { client, cursor, .. } => Some((*client, *cursor)),
        _ => None,
    }
}

fn has_no_reset(run: &Run) -> bool {
    let reset = |event: &Event| matches!(event.what, What::Reset { .. });
    let unsure =
        |event: &Event| matches!(event.what, What::EpochEnded { .. } | What::Forgotten { .. });
    !run.events.iter().any(|it| reset(it) || unsure(it))
}

fn forget_received(run: &mut Run, client: Option<ClientId>, cursor: Cursor) {
    run.events.retain(|event| match received(event) {
        Some((who, at)) => at != cursor || client.is_some_and(|it| it != who),
        None => true,
    });
}

pub(crate) fn never_arrives(run: &mut Run, seed: u64) -> bool {
    let Some(at) = pick(run, seed, |_, it| received(it).is_some()) else {
        return false;
    };
    let (client, cursor) = received(&run.events[at]).unwrap();
    let was_reset =
        |event: &Event| matches!(event.what, What::Reset { client: who, .. } if who == client);
    if run.events.iter().any(was_reset) {
        return false;
    }
    forget_received(run, Some(client), cursor);
    true
}

pub(crate) fn not_stored(run: &mut Run, seed: u64) -> bool {
    if !has_no_reset(run) {
        return false;
    }
    let acked = |event: &Event| match event.what {
        What::Acked { cursor, .. } => Some(cursor),
        _ => None,
    };
    let Some(at) = pick(run, seed, |_, it| acked(it).is_some()) else {
        return false;
    };
    let cursor = acked(&run.events[at]).unwrap();
    forget_received(run, None, cursor);
    run.truth.stream.retain(|it| it.cursor != cursor);
    let archive = run.truth.archive.as_mut().unwrap();
    archive.retain(|it| it.cursor != cursor);
    true
}

pub(crate) fn nobody_published(run: &mut Run, seed: u64) -> bool {
    let Some(at) = pick(run, seed, |_, it| received(it).is_some()) else {
        return false;
    };
    let mut event = run.events[at].clone();
    if let What::Received {
        content, cursor, ..
    } = &mut event.what
    {
        *content = "made up".into();
        cursor.seq += 10_000;
    }
    run.events.insert(at + 1, event);
    true
}

pub(crate) fn stored_nowhere(run: &mut Run, seed: u64) -> bool {
    if !has_no_reset(run) {
        return false;
    }
    let Some(at) = pick(run, seed, |_, it| received(it).is_some()) else {
        return false;
    };
    let (_, of) = received(&run.events[at]).unwrap();
    run.truth.stream.retain(|it| it.cursor != of);
    let archive = run.truth.archive.as_mut().unwrap();
    archive.retain(|it| it.cursor != of);
    true
}

pub(crate) fn before_it_was_published(run: &mut Run, seed: u64) -> bool {
    let Some(at) = pick(run, seed, |_, it| received(it).is_some()) else {
        return false;
    };
    let What::Received { content, .. } = run.events[at].what.clone() else {
        return false;
    };
    let publishes =
        |event: &Event| matches!(&event.what, What::Publish { content: it, .. } if *it == content);
    let late: Vec<Event> = run
        .events
        .iter()
        .filter(|it| publishes(it))
        .cloned()
        .collect();
    run.events.retain(|it| !publishes(it));
    let end = run.events.last().unwrap().at;
    run.events.extend(late.into_iter().map(|it| Event {
        at: end + std::time::Duration::from_millis(1),
        ..it
    }));
    true
}

pub(crate) fn stored_unpublished(run: &mut Run, _: u64) -> bool {
    let Some(stored) = run.truth.stream.first().cloned() else {
        return false;
    };
    let of = stored.content;
    run.events.retain(|event| match &event.what {
        What::Publish { content, .. } => *content != of,
        _ => true,
    });
    true
}

pub(crate) fn twice_in_a_session(run: &mut Run, seed: u64) -> bool {
    let Some(at) = pick(run, seed, |_, it| received(it).is_some()) else {
        return false;
    };
    let event = run.events[at].clone();
    let place = match next_of(run, at).filter(|it| received(&run.events[*it]).is_some()) {
        Some(later) if seed.is_multiple_of(2) => later + 1,
        _ => at + 1,
    };
    run.events.insert(place, event);
    true
}

pub(crate) fn before_the_cursor(run: &mut Run, seed: u64) -> bool {
    let subscribed_from = |event: &Event| match event.what {
        What::Subscribe {
            from: Some(from),
            client,
            ..
        } => Some((client, from)),
        _ => None,
    };
    let earlier = |at: usize, event: &Event| {
        let (client, from) = subscribed_from(event)?;
        let is_it = |it: &&Event| {
            received(it).is_some_and(|(who, cursor)| {
                who == client && cursor.epoch == from.epoch && cursor.seq <= from.seq
            })
        };
        run.events[..at].iter().rev().find(is_it).cloned()
    };
    let Some(at) = pick(run, seed, |at, it| earlier(at, it).is_some()) else {
        return false;
    };
    let again = earlier(at, &run.events[at]).unwrap();
    // Behind `subscribed`.
    run.events.insert(at + 2, again);
    true
}

pub(crate) fn stored_twice(run: &mut Run, seed: u64) -> bool {
    let index = seed as usize % run.truth.stream.len().max(1);
    let Some(mut stored) = run.truth.stream.get(index).cloned() else {
        return false;
    };
    stored.cursor.seq += 10_000;
    run.truth.stream.push(stored.clone());
    run.truth.archive.as_mut().unwrap().push(stored);
    true
}

pub(crate) fn wrong_order(run: &mut Run, seed: u64) -> bool {
    let follows = |at: usize, event: &Event| {
        let (_, cursor) = received(event)?;
        let next = next_of(run, at)?;
        let (_, later) = received(&run.events[next])?;
        (later.epoch == cursor.epoch && cursor.seq < later.seq).then_some(next)
    };
    let Some(at) = pick(run, seed, |at, it| follows(at, it).is_some()) else {
        return false;
    };
    let next = follows(at, &run.events[at]).unwrap();
    let (first, second) = (run.events[at].what.clone(), run.events[next].what.clone());
    run.events[at].what = second;
    run.events[next].what = first;
    true
}

pub(crate) fn hole(run: &mut Run, seed: u64) -> bool {
    let in_the_middle = |at: usize, event: &Event| {
        // A message of a destroyed stream that nobody else saw cannot be missed.
        received(event).is_some_and(|(_, cursor)| is_known(run, cursor))
            && next_of(run, at).is_some_and(|next| received(&run.events[next]).is_some())
    };
    let Some(at) = pick(run, seed, in_the_middle) else {
        return false;
    };
    let next = next_of(run, at).unwrap();
    if let What::Received { prev, .. } = &mut run.events[next].what {
        *prev = 0;
    }
    run.events.remove(at);
    true
}

pub(crate) fn told_of_another(run: &mut Run, seed: u64) -> bool {
    let after_another = |at: usize, event: &Event| {
        let next = next_of(run, at).and_then(|it| received(&run.events[it]));
        let same = received(event).zip(next);
        same.is_some_and(|((_, one), (_, two))| one.epoch == two.epoch)
    };
    let Some(at) = pick(run, seed, after_another) else {
        return false;
    };
    let (_, before) = received(&run.events[at]).unwrap();
    let next = next_of(run, at).unwrap();
    if let What::Received { prev, .. } = &mut run.events[next].what {
        *prev = before.seq + 1;
    }
    true
}

pub(crate) fn another_content(run: &mut Run, seed: u64) -> bool {
    let Some(at) = pick(run, seed, |_, it| received(it).is_some()) else {
        return false;
    };
    let (_, of) = received(&run.events[at]).unwrap();
    let seen = run.events.iter().filter_map(received);
    let others = seen.filter(|(_, cursor)| *cursor == of).count();
    let archive = run.truth.archive.as_ref().unwrap();
    let stored = archive.iter().any(|it| it.cursor == of);
    // Somebody has to know better.
    if others < 2 && !stored {
        return false;
    }
    let Some(any) = run.events.iter().rev().find_map(|event| match &event.what {
        What::Publish { content, .. } => Some(content.clone()),
        _ => None,
    }) else {
        return false;
    };
    if let What::Received { content, .. } = &mut run.events[at].what {
        if *content == any {
            return false;
        }
        *content = any;
    }
    true
}

pub(crate) fn another_id(run: &mut Run, seed: u64) -> bool {
    let Some(at) = pick(run, seed, |_, it| received(it).is_some()) else {
        return false;
    };
    if let What::Received { id, .. } = &mut run.events[at].what {
        *id = Some("another".into());
    }
    true
}

pub(crate) fn ack_elsewhere(run: &mut Run, seed: u64) -> bool {
    // In a stream that was destroyed it may be stored anew.
    if !has_no_reset(run) {
        return false;
    }
    let Some(at) = pick(run, seed, |_, it| matches!(it.what, What::Acked { .. })) else {
        return false;
    };
    let mut event = run.events[at].clone();
    if let What::Acked { cursor, .. } = &mut event.what {
        cursor.seq += 1;
    }
    run.events.insert(at + 1, event);
    true
}

pub(crate) fn skips_at_live(run: &mut Run, seed: u64) -> bool {
    let last_before_live = |at: usize, event: &Event| {
        let next = next_of(run, at).map(|it| &run.events[it].what);
        let live = matches!(next, Some(What::Live { .. } | What::Moved { .. }));
        received(event).is_some() && live
    };
    let Some(at) = pick(run, seed, last_before_live) else {
        return false;
    };
    let (_, cursor) = received(&run.events[at]).unwrap();
    if !is_known(run, cursor) {
        return false;
    }
    run.events.remove(at);
    true
}

pub(crate) fn skips_at_subscribed(run: &mut Run, seed: u64) -> bool {
    let before_message = |at: usize, event: &Event| {
        let resumes = at > 0
            && matches!(
                run.events[at - 1].what,
                What::Subscribe { from: Some(_), .. }
            )
            && matches!(event.what, What::Subscribed { .. });
        let next = next_of(run, at).and_then(|it| received(&run.events[it]));
        resumes && next.is_some_and(|(_, cursor)| is_known(run, cursor))
    };
    let Some(at) = pick(run, seed, before_message) else {
        return false;
    };
    let next = next_of(run, at).unwrap();
    let (_, skipped) = received(&run.events[next]).unwrap();
    if let What::Subscribed { cursor, .. } = &mut run.events[at].what {
        *cursor = skipped;
    }
    run.events.remove(next);
    true
}

/// Whether anybody but the client can know of the message.
fn is_known(run: &Run, of: Cursor) -> bool {
    let archive = run.truth.archive.as_ref().unwrap();
    let acked = |event: &Event| matches!(event.what, What::Acked { cursor, .. } if cursor == of);
    archive.iter().any(|it| it.cursor == of) || run.events.iter().any(acked)
}

pub(crate) fn reset_without_need(run: &mut Run, seed: u64) -> bool {
    if !has_no_reset(run) {
        return false;
    }
    let Some(at) = pick(run, seed, |_, it| received(it).is_some()) else {
        return false;
    };
    let (client, head) = received(&run.events[at]).unwrap();
    let reasons = [
        ResetReason::Epoch,
        ResetReason::Expired,
        ResetReason::Ahead,
        ResetReason::TooFarBehind,
    ];
    let what = What::Reset {
        client,
        reason: reasons[seed as usize % reasons.len()],
        head,
    };
    let event = Event {
        at: run.events[at].at,
        what,
    };
    run.events.insert(at + 1, event);
    true
}

pub(crate) fn refused_but_stored(run: &mut Run, seed: u64) -> bool {
    let Some(stored) = run.truth.archive.as_ref().unwrap().iter().max_by_key(|it| {
        // Any of them, by seed.
        it.cursor.seq.wrapping_mul(seed | 1) % 1_000
    }) else {
        return false;
    };
    let id: Arc<str> = stored.content.replace("content", "id").into();
    for event in &mut run.events {
        let message = match &event.what {
            What::Acked { message, .. } | What::Unknown { message } if message.id == id => message,
            _ => continue,
        };
        let message = message.clone();
        event.what = What::Refused { message };
    }
    true
}

fn row(run: &Run, seed: u64) -> Option<usize> {
    // Such as the stream still holds.
    let archive = run.truth.archive.as_ref()?;
    let cursor = run
        .truth
        .stream
        .get(seed as usize % run.truth.stream.len().max(1))?
        .cursor;
    archive.iter().position(|it| it.cursor == cursor)
}

pub(crate) fn row_missing(run: &mut Run, seed: u64) -> bool {
    let Some(at) = row(run, seed) else {
        return false;
    };
    run.truth.archive.as_mut().unwrap().remove(at);
    true
}

pub(crate) fn row_twice(run: &mut Run, seed: u64) -> bool {
    let Some(at) = row(run, seed) else {
        return false;
    };
    let archive = run.truth.archive.as_mut().unwrap();
    archive.push(archive[at].clone());
    true
}

pub(crate) fn row_differs(run: &mut Run, seed: u64) -> bool {
    let Some(at) = row(run, seed) else {
        return false;
    };
    let row = &mut run.truth.archive.as_mut().unwrap()[at];
    match seed % 2 {
        0 => row.content = "damaged".into(),
        _ => row.channel = channel(77),
    }
    true
}

pub(crate) fn row_too_many(run: &mut Run, seed: u64) -> bool {
    let Some(at) = row(run, seed) else {
        return false;
    };
    let cursor = run.truth.archive.as_ref().unwrap()[at].cursor;
    run.truth.stream.retain(|it| it.cursor != cursor);
    true
}
