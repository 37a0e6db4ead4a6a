use std::fmt::Write;
use std::time::{Duration, Instant};

use super::*;
use crate::model::InputFeature;

fn read(text: &str, features: &Features, extra: ExtraColumns) -> Result<Matrix<f64>, RowError> {
    RowReader::new(text.as_bytes(), features, extra)?.take(usize::MAX)
}

fn rows(text: &str) -> Result<Matrix<f64>, RowError> {
    read(text, &Features::unnamed(2), ExtraColumns::Refuse)
}

fn feature(name: &str, may_be_missing: bool, may_be_infinite: bool) -> InputFeature {
    InputFeature::number(name, may_be_missing, may_be_infinite)
}

fn named() -> Features {
    Features::named(vec![feature("age", false, false), feature("income", true, true)])
}

fn message(result: Result<Matrix<f64>, RowError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn numbers_are_read_as_written() {
    assert_eq!(rows("a,b\n1, -2.5e3\n0.1,7\n").unwrap().values(), [1.0, -2500.0, 0.1, 7.0]);
    assert!(rows("a,b\n").unwrap().is_empty());
}

#[test]
fn an_empty_line_is_not_lost_where_it_may_be_a_row() {
    let read = |text: &str| read(text, &Features::unnamed(1), ExtraColumns::Refuse);
    assert_eq!(read("a\n1\n2\n").unwrap().values(), [1.0, 2.0]);
    assert_eq!(read("a\n1\n\n").unwrap().values(), [1.0]);
    let refused = message(read("a\n1\n\n3\n"));
    assert_eq!(refused, "line 3 is empty: a row of one feature needs its value");
}

#[test]
fn a_first_row_is_not_lost_as_a_header() {
    let with = |text: &str, features: &Features, first_line| {
        RowReader::new(text.as_bytes(), features, first_line)?.take(usize::MAX)
    };
    for text in ["1.5,-2e3\n3,4\n", "1,NA\n3,4\n", " 0, 1\n", "nan,7\n", "1\n"] {
        let features = Features::unnamed(text.lines().next().unwrap().split(',').count());
        let refused = message(with(text, &features, ExtraColumns::Refuse.into()));
        assert!(refused.contains("holds numbers") && refused.contains("--no-header"), "{refused}");
    }
    let found = with("1.5,-2e3\n3,4\n", &Features::unnamed(2), FirstLine::Row).unwrap();
    assert_eq!(found.values(), [1.5, -2000.0, 3.0, 4.0]);
    let found = with("1,2\n3,4\n", &named(), FirstLine::Row).unwrap();
    assert_eq!(found.values(), [1.0, 2.0, 3.0, 4.0]);
    // Features that are named by numbers make a header.
    let numbers = Features::named(vec![feature("1", false, false), feature("0", false, false)]);
    let found = with("0,1\n3,4\n", &numbers, ExtraColumns::Refuse.into()).unwrap();
    assert_eq!(found.values(), [4.0, 3.0]);
}

#[test]
fn a_first_row_is_not_lost_as_a_header_when_not_all_of_it_is_numbers() {
    for first in ["1.5,unknown", "?,0", "nil,2e3", "1,b", ",", "NA,nan", "\"\",null"] {
        let refused = message(rows(&format!("{first}\n3,4\n")));
        assert!(refused.contains("holds numbers or missing values"), "{first}: {refused}");
        assert!(refused.contains("--no-header"), "{first}: {refused}");
    }
    // Names make a header: any ones, and all of the features' beside a number.
    for first in ["a,b", ",b", "NA,b", "inf,b"] {
        assert_eq!(rows(&format!("{first}\n3,4\n")).unwrap().values(), [3.0, 4.0], "{first}");
    }
    let ignoring =
        |text: &str, features: &Features| read(text, features, ExtraColumns::Ignore).unwrap();
    let unnamed = Features::unnamed(2);
    assert_eq!(ignoring("f0,f1,2026\n3,4,5\n", &unnamed).values(), [3.0, 4.0]);
    assert_eq!(ignoring("age,2026,income\n3,4,5\n", &named()).values(), [3.0, 5.0]);
}

#[test]
fn a_header_of_column_numbers_is_to_be_named() {
    for features in [Features::unnamed(2), named()] {
        let refused = message(read("0,1\n3,4\n", &features, ExtraColumns::Refuse));
        let [name, bare] = ["name the columns", "--no-header"].map(|said| refused.find(said));
        assert!(name.unwrap() < bare.unwrap(), "{refused}");
        assert!(refused.contains("count the columns from 0"), "{refused}");
    }
    for other in ["1,0\n", "1,2\n", "0.0,1\n"] {
        assert!(message(rows(other)).contains("no names of columns"), "{other}");
    }
    // What the advice makes of it.
    assert_eq!(rows("f0,f1\n3,4\n").unwrap().values(), [3.0, 4.0]);
}

#[test]
fn without_a_header_every_line_has_all_features() {
    let read = |text: &str| {
        RowReader::new(text.as_bytes(), &Features::unnamed(2), FirstLine::Row)?.take(usize::MAX)
    };
    let refused = message(read("1,2,3\n"));
    assert!(refused.starts_with("line 1 has 3 fields, where there are 2 columns"), "{refused}");
    assert!(message(read("1,2\n3\n")).starts_with("line 2 has 1 fields"));
    let place = "line 1, column \"f0\": \"a\" is not a finite number. What stands for";
    assert!(message(read("a,b\n1,2\n")).starts_with(place));
}

#[test]
fn errors_name_the_place() {
    let message = |text| message(rows(text));
    assert_eq!(message("a,b,c\n"), "the header has 3 columns, where the model has 2 features");
    let place = "line 3, column \"b\": \"x\" is not a finite number. What stands for";
    assert!(message("a,b\n1,2\n3,x\n").starts_with(place));
    assert!(message("a,b\n1,\n").contains("column \"b\": \"\""));
    assert!(message("a,b\n1,NaN\n").contains("\"NaN\" is not a finite"));
    assert!(message("a,b\n1,inf\n").contains("\"inf\" is not a finite"));
    assert!(message("a,b\n1\n").starts_with("line 2 has 1 fields, where there are 2 columns"));
}

#[test]
fn columns_are_found_by_their_names() {
    let read = |text, extra| read(text, &named(), extra);
    let mixed_up = read("income , age\n1,2\n3,4\n", ExtraColumns::Refuse).unwrap();
    assert_eq!(mixed_up.values(), [2.0, 1.0, 4.0, 3.0]);
    let more = "id,age,note,income\n1,2,x,3\n";
    assert!(message(read(more, ExtraColumns::Refuse)).starts_with("column \"id\" is no feature"));
    assert_eq!(read(more, ExtraColumns::Ignore).unwrap().values(), [2.0, 3.0]);
    let missing = message(read("age,incom\n1,2\n", ExtraColumns::Ignore));
    assert!(missing.starts_with("the header has no column \"income\""), "{missing}");
    assert!(missing.ends_with("lacks 1 of 2"), "{missing}");
    let twice = message(read("age,age,income\n", ExtraColumns::Ignore));
    assert_eq!(twice, "two columns are named \"age\"");
}

#[test]
fn features_without_names_have_their_places() {
    let numbered = Features::named(vec![feature("f0", false, false), feature("f1", false, false)]);
    assert!(!numbered.are_named());
    let read = |text| read(text, &numbered, ExtraColumns::Refuse).unwrap();
    assert_eq!(read("age,income\n1,2\n").values(), [1.0, 2.0]);
    assert_eq!(read("f1,f0\n1,2\n").values(), [2.0, 1.0]);
}

#[test]
fn missing_and_infinite_values_are_read_where_the_model_takes_them() {
    let read = |text: &str| read(text, &named(), ExtraColumns::Refuse);
    for missing in ["", " ", "NA", "nan", "NaN", "\"\"", "<NA>", "null", "None", "na"] {
        let row = read(&format!("age,income\n1,{missing}\n")).unwrap();
        assert!(row.values()[1].is_nan(), "{missing:?}");
        let refused = message(read(&format!("age,income\n{missing},1\n")));
        assert!(refused.contains("is not a finite number."), "{refused}");
    }
    assert_eq!(read("age,income\n1,-inf\n").unwrap().values(), [1.0, f64::NEG_INFINITY]);
    assert!(message(read("age,income\ninf,1\n")).contains("is not a finite number."));
    assert!(message(read("age,income\n1,none\n")).contains("not a number, nor is it missing."));
    assert_eq!(read("age,income\nTrue,False\n").unwrap().values(), [1.0, 0.0]);
}

#[test]
fn names_are_found_as_libraries_write_them() {
    let features =
        |names: [&str; 2]| Features::named(names.map(|name| feature(name, true, true)).into());
    let read = |text: &str, names| read(text, &features(names), ExtraColumns::Refuse);
    // The very name comes first, with its blanks.
    let exact = read("age, age\n1,2\n", [" age", "age"]).unwrap();
    assert_eq!(exact.values(), [2.0, 1.0]);
    for (header, names) in [
        ("a b ,c", ["a b ", "c"]),
        (" lead,c", [" lead", "c"]),
        ("a\tb,c", ["a\tb", "c"]),
        ("\"a\nb\",c", ["a\nb", "c"]),
        // LightGBM writes underscores for blanks; no-break spaces are blanks.
        ("a b c,c", ["a_b_c", "c"]),
        ("a_b_c,c", ["a b c", "c"]),
        ("\u{a0}age,c", ["age", "c"]),
    ] {
        let found = read(&format!("{header}\n1,2\n"), names).unwrap();
        assert_eq!(found.values(), [1.0, 2.0], "{header}");
        let (first, last) = header.rsplit_once(',').unwrap();
        let found = read(&format!("{last},{first}\n2,1\n"), names).unwrap();
        assert_eq!(found.values(), [1.0, 2.0], "{header}");
    }
    let twice = message(read("a b,a\tb,c\n1,2,3\n", ["a_b", "c"]));
    assert!(twice.starts_with("two columns are named"), "{twice}");
}

#[test]
fn some_features_may_have_names_and_others_none() {
    let features = ["num_0", "num_1", "lvl"].map(|name| feature(name, true, true));
    let features = Features::named(features.into()).with_nameless(vec![true, true, false]);
    fn read<'a>(text: &'a str, features: &Features) -> Result<RowReader<&'a [u8]>, RowError> {
        RowReader::new(text.as_bytes(), features, ExtraColumns::Refuse)
    }
    let mut reader = read("a,lvl,b\n1,2,3\n", &features).unwrap();
    assert_eq!(reader.names(), ["a", "b", "lvl"]);
    assert_eq!(reader.take(9).unwrap().values(), [1.0, 3.0, 2.0]);
    let mut own = read("lvl,num_1,num_0\n1,2,3\n", &features).unwrap();
    assert_eq!(own.take(9).unwrap().values(), [3.0, 2.0, 1.0]);
    let refused = |text: &str| read(text, &features).map(|_| ()).unwrap_err().to_string();
    assert!(refused("a,b,c\n").contains("lvl") || refused("a,b,c\n").contains("3 columns"));
    assert_eq!(refused("a,a,lvl\n"), "two columns are named \"a\"");
}

#[test]
fn what_a_file_is_instead_is_named() {
    let read = |text: &[u8]| RowReader::new(text, &named(), ExtraColumns::Refuse)?.take(usize::MAX);
    let said = |text: &[u8]| message(read(text));
    assert!(said(b"# made by x\nage,income\n1,2\n").contains("is a comment"));
    assert!(said(b"age;income\n1;2\n").contains("--separator ';'"));
    assert!(said(b"age\tincome\n1\t2\n").contains("--separator '\\t'"));
    assert!(said(b"age,income,\n1,2,\n").starts_with("column 3 has no name"));
    assert!(said(b"\xe4ge,income\n1,2\n").starts_with("line 1, field 1: these bytes are no UTF-8"));
    assert!(said(b"age,income\n1,2\n3,4,5\n").starts_with("line 3 has 3 fields"));
    let format = RowFormat { separator: b';', ..FirstLine::from(ExtraColumns::Refuse).into() };
    let mut semicolons = RowReader::new(&b"income;age\n1;2\n"[..], &named(), format).unwrap();
    assert_eq!(semicolons.take(9).unwrap().values(), [2.0, 1.0]);
}

#[test]
fn marks_of_the_model_and_of_the_file_are_missing_values() {
    let features = named().with_missing(vec!["?".into()]);
    let with = |text: &str, marks: &[&str]| {
        let missing = MissingMarks::of(marks.iter().copied());
        let format = RowFormat { missing, ..FirstLine::from(ExtraColumns::Refuse).into() };
        RowReader::new(text.as_bytes(), &features, format)?.take(usize::MAX)
    };
    assert!(with("age,income\n1,?\n", &[]).unwrap().values()[1].is_nan());
    assert!(with("age,income\n1,-999.0\n", &["-999"]).unwrap().values()[1].is_nan());
    assert_eq!(with("age,income\n1,-999\n", &[]).unwrap().values(), [1.0, -999.0]);
    assert!(message(with("age,income\n1,-\n", &[])).contains("--missing"));
}

/// 200,000 rows of 30 columns in less than a second of one core; a tenth of it here, with room
/// for a busy machine.
#[test]
fn rows_are_read_fast() {
    let (rows, columns) = (20_000, 30);
    let mut text = (0..columns).map(|c| format!("c{c}")).collect::<Vec<_>>().join(",");
    for row in 0..rows {
        text.push('\n');
        for column in 0..columns {
            let separator = if column == 0 { "" } else { "," };
            write!(text, "{separator}{}", f64::from(row * columns + column).sqrt()).unwrap();
        }
    }
    let started = Instant::now();
    let read = read(&text, &Features::unnamed(30), ExtraColumns::Refuse).unwrap();
    assert_eq!(read.len(), 20_000);
    let elapsed = started.elapsed();
    println!("{rows} rows of {columns} columns in {elapsed:?}");
    assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
}
