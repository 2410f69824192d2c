//! Templates that would make a recursive parser overflow its stack.

use tercel_text::ChatTemplate;

#[test]
fn chains_that_would_overflow_the_stack_of_a_parser_are_refused() {
    for (start, link, end) in [
        ("{{ ", "-", "1 }}"),
        ("{{", "-", "1 }}"),
        ("{{ ", "not ", "1 }}"),
        ("{{ 1", "+1", " }}"),
        ("{{ 1", "~1", " }}"),
        ("{{ 1", "**1", " }}"),
        ("{{ 1", " and 1", " }}"),
        ("{{ x", ".a", " }}"),
        ("{{ x", "[0]", " }}"),
        ("{{ x", "()", " }}"),
        ("{{ x", "|upper", " }}"),
        ("{{ 1", " if 1 else 1", " }}"),
        ("{% set x = 1", "+1", " %}"),
        ("{% if 0 %}", "{% elif 0 %}", "{% endif %}"),
    ] {
        for repeats in [500, 5000, 20_000] {
            let source = format!("{start}{}{end}", link.repeat(repeats));
            // The least stack that a thread of a program has by default.
            let thread = std::thread::Builder::new().stack_size(2 << 20);
            let thread = thread.spawn(move || ChatTemplate::new(&source).map(drop));
            let result = thread.expect("a thread").join().expect("no panic");
            let error = result.expect_err(&format!("{repeats} x {link}"));
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
    }
}
