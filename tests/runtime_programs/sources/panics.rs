// Panics: caught, in threads, through destructors; the exit status is 101 if uncaught.
//
// run: caught
// run: uncaught
use std::panic;
use std::thread;

struct Guard(&'static str);
impl Drop for Guard {
    fn drop(&mut self) {
        println!("drop {}{}", self.0, if thread::panicking() { " while panicking" } else { "" });
    }
}
fn deep(depth: u32) -> u32 {
    let _guard = Guard("deep");
    if depth == 0 {
        let empty: Vec<u32> = Vec::new();
        return empty[depth as usize];
    }
    deep(depth - 1) + 1
}
fn main() {
    panic::set_hook(Box::new(|info| println!("hook: {}", info.location().is_some())));
    let result = panic::catch_unwind(|| deep(3));
    println!("{}", result.is_err());
    let text = panic::catch_unwind(|| panic::panic_any(String::from("own payload")));
    println!("{}", text.unwrap_err().downcast_ref::<String>().unwrap());
    let handle = thread::spawn(|| {
        let _guard = Guard("thread");
        "x".parse::<i32>().unwrap()
    });
    println!("{}", handle.join().is_err());
    if std::env::args().nth(1).as_deref() == Some("uncaught") {
        let _guard = Guard("main");
        panic!("the end");
    }
    std::process::exit(7);
}
