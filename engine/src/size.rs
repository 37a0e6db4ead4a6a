//! Sizes as people read them.

/// Units, each 1024 times the one before.
const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// Bytes as people read them: whole ones below a kibibyte, else two digits behind the point.
pub fn size(bytes: usize) -> String {
    if bytes < 1024 {
        return format!("{bytes} {}", UNITS[0]);
    }
    #[allow(clippy::cast_precision_loss, reason = "two digits behind the point are shown")]
    let (mut number, mut unit) = (bytes as f64 / 1024.0, 1);
    while number >= 1024.0 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    format!("{number:.2} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1_572_864, "1.50 MiB"),
            (5 << 30, "5.00 GiB"),
            (7 << 50, "7168.00 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
