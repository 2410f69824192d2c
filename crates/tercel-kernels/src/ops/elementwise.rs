//! Operations number by number, left to the compiler's own vectorisation.

/// `x += y`.
///
/// # Panics
/// When the lengths differ.
pub fn add(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "both sides of an addition");
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// `x *= factor`.
pub fn scale(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_do_what_they_say() {
        let mut x = vec![1.0, 2.0, 3.0, 4.0];
        add(&mut x, &[1.0; 4]);
        scale(&mut x, 0.5);
        assert_eq!(x, [1.0, 1.5, 2.0, 2.5]);
    }
}
