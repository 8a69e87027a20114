//! The operands of a product: where the values of its two factors lie, and where its rows go.

/// The left factor: where the values of every row lie.
pub(crate) trait Rows: Sync {
    /// What is worked out once for all runs of a row.
    type Origin: Copy;

    /// Rows.
    fn count(&self) -> usize;
    /// Runs of a row.
    fn taps(&self) -> usize;
    /// Values of run `tap`.
    fn depth(&self, tap: usize) -> usize;
    /// Steps in the buffer from one value of a run to the next.
    fn step(&self) -> usize;
    /// The place of a row.
    fn origin(&self, row: usize) -> Self::Origin;
    /// Where run `tap` of the row at `origin` begins in the buffer, or none for a run of zeros.
    fn locate(&self, origin: Self::Origin, tap: usize) -> Option<usize>;
}

/// Rows that lie one after another, without taps.
#[derive(Clone, Copy)]
pub(crate) struct Dense {
    /// Where the first row begins.
    pub(crate) start: usize,
    /// Rows.
    pub(crate) count: usize,
    /// Values of a row.
    pub(crate) depth: usize,
    /// Steps from row to row.
    pub(crate) stride: usize,
    /// Steps from value to value.
    pub(crate) step: usize,
}

impl Dense {
    /// The rows of a matrix of `depth` columns.
    pub(crate) fn rows(count: usize, depth: usize) -> Self {
        Self {
            start: 0,
            count,
            depth,
            stride: depth,
            step: 1,
        }
    }

    /// The columns of a matrix of `rows` rows and `count` columns.
    pub(crate) fn columns(rows: usize, count: usize) -> Self {
        Self {
            start: 0,
            count,
            depth: rows,
            stride: 1,
            step: count,
        }
    }
}

impl Rows for Dense {
    type Origin = usize;

    fn count(&self) -> usize {
        self.count
    }
    fn taps(&self) -> usize {
        1
    }
    fn depth(&self, _tap: usize) -> usize {
        self.depth
    }
    fn step(&self) -> usize {
        self.step
    }
    fn origin(&self, row: usize) -> usize {
        self.start + row * self.stride
    }
    fn locate(&self, origin: usize, _tap: usize) -> Option<usize> {
        Some(origin)
    }
}

/// The right factor: the values of run `tap` of the reduction begin at `starts[tap]`.
pub(crate) struct Right<'a> {
    pub(crate) values: &'a [f32],
    /// Where the rows of every tap begin; one for each tap of the left factor.
    pub(crate) starts: &'a [usize],
    /// Steps from one value of a run to the next.
    pub(crate) row_stride: usize,
    /// Steps from column to column.
    pub(crate) column_stride: usize,
    /// Columns.
    pub(crate) columns: usize,
}

impl<'a> Right<'a> {
    /// A matrix of `columns` columns, without taps.
    pub(crate) fn rows(values: &'a [f32], columns: usize) -> Self {
        Self {
            values,
            starts: &[0],
            row_stride: columns,
            column_stride: 1,
            columns,
        }
    }
}

/// Where the rows of the result go: row by row of a grid, image by image; their columns lie side by side.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// Where the first row goes.
    pub(crate) start: usize,
    /// Height and width of the grid.
    pub(crate) grid: [usize; 2],
    /// Steps from image to image, down the grid and along it.
    pub(crate) strides: [usize; 3],
}

impl Target {
    /// One row after another.
    pub(crate) fn rows(start: usize, stride: usize) -> Self {
        Self {
            start,
            grid: [1, 1],
            strides: [stride; 3],
        }
    }

    /// Where `row` begins.
    pub(super) fn locate(&self, row: usize) -> usize {
        let [height, width] = self.grid;
        let [image, down, along] = self.strides;
        if height * width == 1 {
            return self.start + row * image;
        }
        let (line, x) = (row / width, row % width);
        self.start + line / height * image + line % height * down + x * along
    }

    /// Whether `rows` rows of `columns` values are disjoint and within `len`.
    pub(super) fn holds(&self, rows: usize, columns: usize, len: usize) -> bool {
        // What a wrong size makes of these does not fit a `usize`.
        let wide = |size: usize| size as u128;
        let ([height, width], [image, down, along]) = (self.grid.map(wide), self.strides.map(wide));
        let (rows, columns) = (wide(rows), wide(columns));
        let line = (width - 1) * along + columns;
        let disjoint = (width == 1 || along >= columns)
            && (height == 1 || down >= line)
            && (rows <= height * width || image >= (height - 1) * down + line);
        // Rows go up, so the last one ends last.
        let (last_line, x) = ((rows - 1) / width, (rows - 1) % width);
        let last = wide(self.start) + last_line / height * image + last_line % height * down + x * along;
        disjoint && last + columns <= wide(len)
    }
}

/// Whether the product is added to what the target holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Into {
    Overwrite,
    Add,
}
