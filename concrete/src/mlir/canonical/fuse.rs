//! A table behind a table.

use std::collections::HashMap;
use std::rc::Rc;

use cipherscore_engine::parameters::Encoding;

use super::super::error::LowerMlirError;
use super::super::limits::MAX_MULTIPLICATIONS;
use super::super::operation::Kind;
use super::super::tensor::{Clear, Element, Type};
use super::Tables;

/// Whether an operation is one table, or one of several for each element.
pub(super) fn is_table(kind: &Kind) -> bool {
    matches!(kind, Kind::Table(_) | Kind::MappedTable { .. })
}

/// `second(first(x))` as one table for x of type `index`, where `entry` is how the first table's
/// entries are encoded.
pub(super) fn compose(
    first: &Kind,
    index: &Type,
    second: &Kind,
    entry: Encoding,
    multiplications: &mut usize,
) -> Result<Option<Kind>, LowerMlirError> {
    let (Some((first, first_map)), Some((second, second_map))) = (parts(first), parts(second))
    else {
        return Ok(None);
    };
    let Some(encoding) = index.encoding() else { return Ok(None) };
    let positions = match (first_map, second_map) {
        (None, None) => 1,
        _ => index.len(),
    };
    let row = |map: Option<&Tables>, position: usize| map.map_or(0, |map| map.values[position]);
    // Equal pairs of tables give one table, and different pairs may give equal ones.
    let mut of_pairs: HashMap<(i64, i64), i64> = HashMap::new();
    let mut of_tables: HashMap<Vec<i64>, i64> = HashMap::new();
    let mut tables: Vec<i64> = Vec::new();
    let mut map = Vec::with_capacity(positions);
    for position in 0..positions {
        let pair = (row(first_map, position), row(second_map, position));
        if let Some(&known) = of_pairs.get(&pair) {
            map.push(known);
            continue;
        }
        *multiplications += 1 << encoding.width;
        if *multiplications > MAX_MULTIPLICATIONS {
            return Err(LowerMlirError::too_large("multiplications", MAX_MULTIPLICATIONS));
        }
        let table = composed(table_of(first, pair.0), encoding, table_of(second, pair.1), entry);
        let next = i64::try_from(of_tables.len()).unwrap_or(i64::MAX);
        let known = *of_tables.entry(table).or_insert_with_key(|table| {
            tables.extend(table);
            next
        });
        of_pairs.insert(pair, known);
        map.push(known);
    }
    let (rows, length) = (of_tables.len(), 1 << encoding.width);
    let integers = |shape| Type { shape, is_tensor: true, element: Element::Integer { bits: 64 } };
    if rows == 1 {
        return Ok(Some(Kind::Table(Rc::new(Clear {
            ty: integers(vec![length]),
            values: tables,
        }))));
    }
    let tables = Rc::new(Clear { ty: integers(vec![rows, length]), values: tables });
    let ty = Type { element: Element::Index, ..index.clone() };
    Ok(Some(Kind::MappedTable { tables, map: Rc::new(Clear { ty, values: map }) }))
}

fn parts(kind: &Kind) -> Option<(&Tables, Option<&Tables>)> {
    match kind {
        Kind::Table(table) => Some((table, None)),
        Kind::MappedTable { tables, map } => Some((tables, Some(map))),
        _ => None,
    }
}

/// Maps are checked to name tables that are there.
fn table_of(tables: &Clear, row: i64) -> &[i64] {
    tables.row(usize::try_from(row).unwrap_or(0))
}

/// For each index in the order of tables, the second's entry at the first's.
fn composed(first: &[i64], index: Encoding, second: &[i64], entry: Encoding) -> Vec<i64> {
    let size = |encoding: Encoding| 1i64 << encoding.width;
    let negative = if index.signed { size(index) / 2 } else { 0 };
    let indices = (0..size(index) - negative).chain(-negative..0);
    let look_up = |table: &[i64], index, encoding| table[place(index, encoding)];
    indices.map(|x| look_up(second, look_up(first, x, index), entry)).collect()
}

/// Where a table has the entry of an integer: below zero from the end, beyond the ends at the
/// nearest one that there is.
fn place(integer: i64, encoding: Encoding) -> usize {
    let size = 1i64 << encoding.width;
    let place = match integer {
        _ if integer >= size && encoding.signed => size / 2 - 1,
        _ if integer >= size => size - 1,
        _ if integer < -size => size / 2,
        _ if integer < 0 => integer + size,
        _ => integer,
    };
    usize::try_from(place).expect("tables have 2 to 2^16 entries")
}
