//! Tests that a room of the core uses only rooms on floors below its own, and that only `h5` uses libhdf5.

use std::fs;
use std::path::{Path, PathBuf};

/// From the lowest floor to the highest.
const FLOORS: [&[&str]; 7] = [
    &["error", "dtype", "filters"],
    &["layout", "file", "threads", "memory"],
    &["rows", "h5"],
    &["cache"],
    &["matrix"],
    &["rewrite"],
    &["python"],
];

/// The files of the core that belong to a room, each with its room and its text without tests' comments.
fn files() -> Vec<(String, PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("rust")];
    let top = folders[0].clone();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let file = entry.unwrap().path();
            if file.is_dir() {
                folders.push(file);
            } else {
                let inside = file.strip_prefix(&top).unwrap().with_extension("");
                let room = inside.iter().next().unwrap().to_str().unwrap().to_owned();
                let lines = fs::read_to_string(&file).unwrap();
                let code = lines.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>();
                found.push((room, file, code.join("\n")));
            }
        }
    }
    found.retain(|(room, ..)| !["lib", "rooms"].contains(&room.as_str()));
    found
}

fn floor(room: &str) -> usize {
    FLOORS.iter().position(|rooms| rooms.contains(&room)).unwrap_or_else(|| panic!("the room '{room}' has no floor"))
}

/// The rooms that `code` names after `crate::`.
fn used(code: &str) -> impl Iterator<Item = &str> {
    code.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c: char| c != '_' && !c.is_alphanumeric()).next().unwrap_or(""))
}

#[test]
fn rooms_use_only_rooms_on_floors_below() {
    let (mut arrows, files) = (0, files());
    for (room, path, code) in &files {
        for other in used(code).filter(|other| other != room) {
            assert!(floor(other) < floor(room), "{}: {room} uses {other}", path.display());
            arrows += 1;
        }
    }
    assert!(arrows > 30, "found only {arrows} arrows in {} files", files.len());
}

#[test]
fn only_h5_uses_libhdf5() {
    let users = files().into_iter().filter(|(_, _, code)| code.contains("hdf5::")).map(|(room, ..)| room);
    let mut users: Vec<String> = users.collect();
    users.dedup();
    assert_eq!(users, ["h5"]);
}
