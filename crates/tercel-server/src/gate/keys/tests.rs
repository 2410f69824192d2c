use std::path::PathBuf;

use super::*;

const SECRET: &str = "0123456789abcdef-user";
const OTHER: &str = "0123456789abcdef-admin";

fn from_env(variables: &[(&str, &str)]) -> Result<Keys, KeysError> {
    Keys::from_env(
        variables
            .iter()
            .map(|(name, value)| (name.into(), value.into())),
    )
}

#[cfg(unix)]
fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    (folder, path)
}

#[test]
fn variables_name_the_key_and_its_role() {
    let keys = from_env(&[
        ("K_USER_1", SECRET),
        ("K_ADMIN_1", OTHER),
        ("PATH", "/bin"),
        ("K_OTHER_1", "x"),
        ("K_USER_", "x"),
        ("K_USER", "x"),
        ("K_USER_name", "x"),
    ])
    .unwrap();
    assert_eq!(
        keys.with_secret(SECRET.as_bytes()),
        Some(("k_user_1", Role::User))
    );
    assert_eq!(
        keys.with_secret(OTHER.as_bytes()),
        Some(("k_admin_1", Role::Admin))
    );
    assert_eq!(keys.with_secret(b""), None);
    assert_eq!(keys.with_secret(&SECRET.as_bytes()[1..]), None);
    assert_eq!((keys.len(), keys.is_empty()), (2, false));
}

#[test]
fn what_is_no_key_is_refused_without_telling_the_secret() {
    for (variables, part) in [
        (vec![("K_USER_1", "s3cret")], "shorter than 16"),
        (vec![("K_USER_1", "")], "shorter than 16"),
        (
            vec![("K_USER_1", "s3cret with a space in it")],
            "characters",
        ),
        (
            vec![
                ("K_USER_1", "s3cret-0123456789"),
                ("K_USER_2", "s3cret-0123456789"),
            ],
            "k_user_1",
        ),
    ] {
        let error = from_env(&variables).unwrap_err();
        let text = format!("{error} {error:?} {:?}", error.hint());
        assert!(text.contains(part) && text.contains("K_USER_"), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn secrets_are_in_no_debug_output() {
    let keys = from_env(&[("K_USER_1", SECRET)]).unwrap();
    let config = crate::Config {
        keys,
        ..Default::default()
    };
    let text = format!("{config:?}");
    assert!(
        text.contains("k_user_1") && !text.contains("0123456789"),
        "{text}"
    );
}

#[test]
#[cfg(unix)]
fn a_file_has_a_key_a_line() {
    let text = format!("# mine\n\nalice user {SECRET} # laptop\n  bob  Admin {OTHER}#1\n");
    for mode in [0o600, 0o400] {
        let (_folder, path) = file(&text, mode);
        let keys = Keys::from_file(&path).unwrap();
        assert_eq!(
            keys.with_secret(SECRET.as_bytes()),
            Some(("alice", Role::User))
        );
        let other = format!("{OTHER}#1");
        assert_eq!(
            keys.with_secret(other.as_bytes()),
            Some(("bob", Role::Admin))
        );
    }
}

#[test]
#[cfg(unix)]
fn a_file_that_others_may_open_is_refused() {
    for mode in [0o644, 0o640, 0o604, 0o620, 0o601] {
        let (_folder, path) = file("", mode);
        let error = Keys::from_file(&path).unwrap_err();
        assert!(matches!(error, KeysError::Mode { mode: found, .. } if found == mode));
        assert!(error.hint().unwrap().starts_with("run `chmod 600 "));
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        Keys::from_file(folder.path()),
        Err(KeysError::File { .. })
    ));
    let missing = folder.path().join("none");
    assert!(matches!(
        Keys::from_file(missing),
        Err(KeysError::File { .. })
    ));
}

#[test]
#[cfg(unix)]
fn bad_lines_are_named() {
    for (line, part) in [
        ("alice user", "line 2: it is not `id role secret`"),
        (
            "alice user 0123456789abcdef extra",
            "line 2: it is not `id role secret`",
        ),
        ("alice root 0123456789abcdef", "line 2: the role"),
        ("al/ice user 0123456789abcdef", "line 2: the name"),
        (
            "alice user 0123456789abcde",
            "line 2: the secret is shorter",
        ),
        (
            "first user 0123456789abcdef",
            "line 2: there is a key `first` already",
        ),
        (
            "alice user fedcba9876543210",
            "line 2: the secret is that of the key `first`",
        ),
    ] {
        let (_folder, path) = file(&format!("first user fedcba9876543210\n{line}\n"), 0o600);
        let error = Keys::from_file(&path).unwrap_err().to_string();
        assert!(error.contains(part), "{line}: {error}");
    }
}

#[test]
fn keys_of_two_places_are_merged_unless_they_meet() {
    let mut keys = from_env(&[("K_USER_1", SECRET)]).unwrap();
    keys.merge(from_env(&[("K_ADMIN_1", OTHER)]).unwrap())
        .unwrap();
    assert_eq!(keys.len(), 2);
    let same_id = keys.merge(from_env(&[("K_USER_1", "fedcba9876543210")]).unwrap());
    assert!(matches!(same_id, Err(KeysError::SameId { .. })));
    assert!(matches!(
        keys.insert("other", Role::User, OTHER),
        Err(KeysError::SameSecret { id, .. }) if id == "k_admin_1"
    ));
}
