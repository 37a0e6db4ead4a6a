//! Numbers of many rows in one allocation.

use rayon::prelude::*;

/// Rows of equal length, one after the other in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix<T> {
    width: usize,
    values: Vec<T>,
}

impl<T> Matrix<T> {
    /// Whole rows of `width` values each.
    ///
    /// # Panics
    ///
    /// If rows have no values, or the last one is not complete.
    pub fn new(width: usize, values: Vec<T>) -> Self {
        assert!(width > 0 && values.len().is_multiple_of(width), "whole rows");
        Self { width, values }
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All values, row after row.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// The rows in their order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[T]> {
        self.values.chunks_exact(self.width)
    }
}

impl<T: Sync> Matrix<T> {
    /// The rows, for all threads of the current pool.
    pub fn par_rows(&self) -> impl IndexedParallelIterator<Item = &[T]> {
        self.values.par_chunks_exact(self.width)
    }
}

impl<T: Clone> Matrix<T> {
    /// Some rows, from number `first` on; fewer than `count` at the end.
    pub fn part(&self, first: usize, count: usize) -> Self {
        let end = self.len().min(first + count);
        Self { width: self.width, values: self.values[first * self.width..end * self.width].into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_whole_and_in_order() {
        let matrix = Matrix::new(2, vec![1, 2, 3, 4, 5, 6]);
        assert_eq!((matrix.len(), matrix.width()), (3, 2));
        assert_eq!(matrix.rows().collect::<Vec<_>>(), [[1, 2], [3, 4], [5, 6]]);
        assert_eq!(matrix.part(1, 9).values(), [3, 4, 5, 6]);
        assert!(matrix.part(3, 1).is_empty());
    }

    #[test]
    #[should_panic(expected = "whole rows")]
    fn half_a_row_is_none() {
        Matrix::new(2, vec![1, 2, 3]);
    }
}
