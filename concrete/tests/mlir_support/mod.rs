//! Small circuits as text, with keys and gates that fit.

use cipherscore_concrete::mlir::{LowerMlirError, Lowered, Source, lower};
use cipherscore_engine::parameters::{
    BootstrapKeyParameters, Compression, Encoding, Gate, KeysetParameters, KeyswitchKeyParameters,
    SecretKeyParameters, Signature,
};

/// What the compiler is asked for by default.
pub(crate) const CONFIGURATION: &[u8] = br#"{"p_error": 1e-5}"#;
const VARIANCE: f64 = 1e-30;
/// Degree of the polynomials, and words of a table.
const SIZE: usize = 2048;

/// One key for everything and one for what is bootstrapped.
pub(crate) fn keyset(has_tables: bool) -> KeysetParameters {
    let secret_key = |lwe_dimension| SecretKeyParameters { lwe_dimension };
    let linear = KeysetParameters { secret_keys: vec![secret_key(SIZE)], ..Default::default() };
    if !has_tables {
        return linear;
    }
    KeysetParameters {
        secret_keys: vec![secret_key(SIZE), secret_key(700)],
        bootstrap_keys: vec![BootstrapKeyParameters {
            input_key: 1,
            output_key: 0,
            level_count: 1,
            base_log: 23,
            glwe_dimension: 1,
            polynomial_size: SIZE,
            variance: VARIANCE,
        }],
        keyswitch_keys: vec![KeyswitchKeyParameters {
            input_key: 0,
            output_key: 1,
            level_count: 4,
            base_log: 4,
            variance: VARIANCE,
        }],
    }
}

/// The gate of `tensor<AxBx!FHE.eint<w>>` or of a scalar, under key 0.
pub(crate) fn gate(ty: &str) -> Gate {
    let inner = ty.trim_start_matches("tensor<");
    let (sizes, element) = inner.split_at(inner.find('!').unwrap());
    let shape = sizes.split_terminator('x').map(|size| size.parse().unwrap()).collect();
    let digits: String = element.chars().filter(char::is_ascii_digit).collect();
    let encoding =
        Encoding { width: digits.parse().unwrap(), signed: element.starts_with("!FHE.esint") };
    Gate {
        shape,
        key: 0,
        lwe_dimension: SIZE,
        variance: VARIANCE,
        encoding,
        compression: Compression::Seed,
    }
}

/// A function of arguments `%arg0`, .. with the given lines, which returns `%out`.
pub(crate) fn text(arguments: &[&str], lines: &str, output: &str) -> String {
    let arguments: Vec<String> =
        arguments.iter().enumerate().map(|(i, ty)| format!("%arg{i}: {ty}")).collect();
    format!(
        "module {{\n  func.func @main({}) -> {output} {{\n{lines}\n    return %out : {output}\n  \
         }}\n}}\n",
        arguments.join(", ")
    )
}

/// Keys and gates of such a function.
pub(crate) fn signature(arguments: &[&str], output: &str, has_tables: bool) -> Signature {
    Signature {
        keyset: keyset(has_tables),
        inputs: arguments.iter().map(|ty| gate(ty)).collect(),
        outputs: vec![gate(output)],
    }
}

/// Lowers a text.
pub(crate) fn lower_text(text: &[u8], signature: &Signature) -> Result<Lowered, LowerMlirError> {
    let source =
        Source { circuit: text, configuration: CONFIGURATION, composition_rules: Some(b"null") };
    lower(source, signature)
}
