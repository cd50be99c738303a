//! Panics in a function that C code calls.

#[inline(never)]
fn inner(x: i32) -> i32 {
    if x > 0 {
        panic!("no {x}");
    }
    x
}

#[inline(never)]
fn middle(x: i32) -> i32 {
    inner(x) + 1
}

#[no_mangle]
pub extern "C" fn panics(x: i32) -> i32 {
    std::panic::catch_unwind(|| middle(x)).unwrap_or(101)
}
