//! A process that may write only in certain places.
#![cfg(target_os = "linux")]

mod process_support;

use std::fs;
use std::path::Path;

use process_support::fixture;
use readyroom::process::{self, Command, Io};
use tokio::io::AsyncReadExt;

/// Runs a shell script that may write below `inside` only, and gives what it prints.
async fn confined(inside: &Path, script: &str) -> String {
    fixture();
    let mut command = Command::new("bash").arg("-c").arg(script);
    command.cwd = inside.to_owned();
    command.io = Io::Merged;
    command.writable = Some(vec![inside.to_owned(), inside.join("does not/exist")]);
    let mut process = process::spawn(&command).await.expect("this kernel can confine a process");
    let mut output = String::new();
    process.stdout.read_to_string(&mut output).await.unwrap();
    output
}

#[tokio::test]
async fn nothing_outside_is_made_changed_moved_or_removed() {
    let root = tempfile::tempdir().unwrap();
    let (inside, outside) = (root.path().join("in"), root.path().join("out"));
    fs::create_dir(&inside).unwrap();
    fs::create_dir_all(outside.join("empty")).unwrap();
    fs::write(outside.join("old"), "old").unwrap();
    std::os::unix::fs::symlink(outside.join("old"), inside.join("link")).unwrap();
    let script = "echo new >file && cat file && echo x >/dev/null && mkdir -p a/b && mv file a/b/ && rm -r a && echo fine
        for try in 'echo x >../out/new' 'echo x >../out/old' 'truncate -s 0 ../out/old' 'rm ../out/old' 'mv ../out/old .' \
            'ln ../out/old here' 'mkdir ../out/d' 'rmdir ../out/empty' 'echo x >link' 'setsid bash -c \"echo x >../out/new\"' \
            'mv link ../out/'; do
            eval \"$try\" 2>/dev/null && echo \"$try\"
        done
        cat ../out/old";
    assert_eq!(confined(&inside, script).await, "new\nfine\nold");
    let mut left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["empty", "old"]);
}

#[tokio::test]
async fn of_the_devices_only_the_harmless_can_be_written() {
    let root = tempfile::tempdir().unwrap();
    let shared = tempfile::NamedTempFile::with_prefix_in("readyroom-", "/dev/shm").unwrap();
    let script = format!(
        "echo x >/dev/null && echo x >/dev/zero && script -qec 'echo terminal >/dev/tty' /dev/null
        (echo x >{}) 2>/dev/null || echo refused",
        shared.path().display()
    );
    assert_eq!(confined(root.path(), &script).await, "terminal\r\nrefused\n");
    assert_eq!(shared.as_file().metadata().unwrap().len(), 0);
}

#[tokio::test]
async fn without_rules_all_of_it_is_possible() {
    fixture();
    let root = tempfile::tempdir().unwrap();
    let mut command = Command::new("bash").arg("-c").arg("echo x >new");
    command.cwd = root.path().to_owned();
    process::spawn(&command).await.unwrap().handle.wait().await;
    assert!(root.path().join("new").exists());
}
