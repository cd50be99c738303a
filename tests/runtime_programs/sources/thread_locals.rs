// Thread-local values with destructors, channels, scoped threads, 8 of them.
//
// threads: 8
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::{mpsc, Arc, Mutex};
use std::thread;

struct Noisy(Cell<u64>);
impl Drop for Noisy {
    fn drop(&mut self) {
        DROPPED.lock().unwrap().push(self.0.get());
    }
}
static DROPPED: Mutex<Vec<u64>> = Mutex::new(Vec::new());
thread_local! {
    static NOISY: Noisy = Noisy(Cell::new(0));
    static LIST: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn main() {
    let (sender, receiver) = mpsc::channel();
    let total = Arc::new(Mutex::new(BTreeMap::new()));
    let handles: Vec<_> = (0..8u64)
        .map(|number| {
            let (sender, total) = (sender.clone(), Arc::clone(&total));
            thread::spawn(move || {
                for step in 0..=number {
                    NOISY.with(|n| n.0.set(n.0.get() + step));
                    LIST.with(|l| l.borrow_mut().push(format!("{step}")));
                }
                total.lock().unwrap().insert(number, LIST.with(|l| l.borrow().join(",")));
                sender.send(NOISY.with(|n| n.0.get())).unwrap();
            })
        })
        .collect();
    drop(sender);
    println!("{}", receiver.iter().sum::<u64>());
    for handle in handles {
        handle.join().unwrap();
    }
    println!("{:?}", total.lock().unwrap());
    let mut dropped = DROPPED.lock().unwrap().clone();
    dropped.sort();
    println!("{dropped:?} {}", LIST.with(|l| l.borrow().len()));
    let mut numbers = [3, 1, 2];
    thread::scope(|scope| {
        scope.spawn(|| numbers.sort());
    });
    println!("{numbers:?} {:.3}", 2f64.powf(0.5));
}
