//! The command `readyroom`.

fn main() {
    readyroom::init();
}
