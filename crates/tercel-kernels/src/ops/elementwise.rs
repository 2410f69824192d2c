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

/// Adds `bias` to each row of `x`.
///
/// # Panics
/// When `x` is no whole number of rows.
pub fn add_bias(x: &mut [f32], bias: &[f32]) {
    assert!(
        x.len().is_multiple_of(bias.len()),
        "{} rows of {}",
        x.len(),
        bias.len()
    );
    for row in x.chunks_exact_mut(bias.len()) {
        add(row, bias);
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
        add_bias(&mut x, &[10.0, 20.0]);
        scale(&mut x, 0.5);
        assert_eq!(x, [6.0, 11.5, 7.0, 12.5]);
    }
}
