//! One answer in every order of events. `cargo xtask loom` runs them.
//!
//! A thread that waits for a call that never comes fails a model.

use loom::thread;

use super::*;

/// A task that is woken, and a thread that waits for that.
struct Task(Wake);

impl std::task::Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.call();
    }
}

/// What a task gets.
fn wait_as_a_task(mut awaited: Awaited<u32>) -> Option<u32> {
    let task = Arc::new(Task(Wake::default()));
    let waker = Waker::from(Arc::clone(&task));
    loop {
        match Pin::new(&mut awaited).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => task.0.wait(None),
        }
    }
}

#[test]
fn whoever_waits_gets_the_answer_or_learns_that_there_is_none() {
    let waits: [fn(Awaited<u32>) -> Option<u32>; 2] = [Awaited::wait, wait_as_a_task];
    for wait in waits {
        for given in [Some(7), None] {
            loom::model(move || {
                let (answer, awaited) = answer(Arc::default());
                let engine = thread::spawn(move || match given {
                    Some(value) => answer.give(value),
                    None => drop(answer),
                });
                assert_eq!(wait(awaited), given);
                engine.join().expect("no panic");
            });
        }
    }
}

#[test]
fn a_question_that_is_taken_back_wakes_the_engine() {
    loom::model(|| {
        let wake = Arc::new(Wake::default());
        let (answer, awaited) = answer::<u32>(Arc::clone(&wake));
        let asker = thread::spawn(move || drop(awaited));
        while !answer.is_abandoned() {
            wake.wait(None);
        }
        asker.join().expect("no panic");
    });
}
