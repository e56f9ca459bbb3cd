//! Counting a delivery takes no memory.

#![expect(
    unsafe_code,
    reason = "an allocator that counts has to be one, and only passes on what it is given"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use delivery::stats::{Counter, Histogram, LATENCY_US};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's, counting per thread.
struct Counting;

// SAFETY: every call is the system allocator's own, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn counting_allocates_nothing() {
    let deliveries = Counter::default();
    let took_us = Histogram::new(&LATENCY_US);
    let counted = std::thread::spawn(move || {
        let before = ALLOCATIONS.get();
        for value in 0..1_000 {
            deliveries.add(1);
            took_us.observe_many(value, 3);
        }
        let after = ALLOCATIONS.get();
        // What counts is not that nothing is counted.
        drop(std::hint::black_box(Box::new(1)));
        assert_eq!(ALLOCATIONS.get(), after + 1);
        (deliveries.get(), took_us.state().count, after - before)
    });
    assert_eq!(counted.join().unwrap(), (1_000, 3_000, 0));
}
