//! A convolution as matrix products: which values of a map meet which pixel of the kernel.

use super::product::{Rows, Target};

/// One axis pair of a convolution's geometry, shared by its three products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Images.
    pub(crate) batch: usize,
    /// Height and width of the map that goes in.
    pub(crate) input: [usize; 2],
    /// Height and width of the map that comes out.
    pub(crate) output: [usize; 2],
    /// Height and width of the kernel.
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    /// Rows above and columns to the left that are added.
    pub(crate) before: [usize; 2],
    pub(crate) dilation: [usize; 2],
}

impl Geometry {
    /// Rows of the input, plus padding, that pixel `o` of the output meets at kernel pixel `k`, and so for columns.
    fn meets(&self, axis: usize, o: usize, k: usize) -> Option<usize> {
        let position = (o * self.stride[axis] + k * self.dilation[axis]).checked_sub(self.before[axis])?;
        (position < self.input[axis]).then_some(position)
    }

    /// The input pixel that an output pixel meets at a kernel pixel, if it is not padding.
    pub(crate) fn pixel(&self, output: [usize; 2], tap: [usize; 2]) -> Option<[usize; 2]> {
        Some([self.meets(0, output[0], tap[0])?, self.meets(1, output[1], tap[1])?])
    }

    /// The pixels of the kernel, row by row.
    pub(crate) fn taps(&self) -> Vec<[usize; 2]> {
        let [height, width] = self.kernel;
        (0..height).flat_map(|i| (0..width).map(move |j| [i, j])).collect()
    }

    /// Pixels of the output of all images.
    pub(crate) fn outputs(&self) -> usize {
        self.batch * self.output[0] * self.output[1]
    }
}

/// What every output pixel sees: a row per pixel, a run per kernel pixel.
pub(crate) struct Seen<'a> {
    pub(crate) geometry: Geometry,
    pub(crate) taps: &'a [[usize; 2]],
    /// Channels of the map.
    pub(crate) channels: usize,
    /// The group's channels: the first, and how many.
    pub(crate) group: [usize; 2],
}

impl Rows for Seen<'_> {
    type Origin = [usize; 3];

    fn count(&self) -> usize {
        self.geometry.outputs()
    }
    fn taps(&self) -> usize {
        self.taps.len()
    }
    fn depth(&self, _tap: usize) -> usize {
        self.group[1]
    }
    fn step(&self) -> usize {
        1
    }
    fn origin(&self, row: usize) -> [usize; 3] {
        let [height, width] = self.geometry.output;
        [row / width / height, row / width % height, row % width]
    }
    fn locate(&self, [image, y, x]: [usize; 3], tap: usize) -> Option<usize> {
        let [height, width] = self.geometry.input;
        let [i, j] = self.taps[tap];
        let (y, x) = (self.geometry.meets(0, y, i)?, self.geometry.meets(1, x, j)?);
        Some(((image * height + y) * width + x) * self.channels + self.group[0])
    }
}

/// The input pixels whose position, counted with the padding, has one remainder modulo the stride. The same kernel
/// pixels meet all of them.
pub(crate) struct Class {
    /// Height and width of the input's padded grid modulo the stride.
    remainder: [usize; 2],
    /// First input pixel of the class.
    first: [usize; 2],
    /// Input pixels of the class, down and along.
    pub(crate) size: [usize; 2],
    /// Kernel pixels that meet them.
    pub(crate) taps: Vec<[usize; 2]>,
}

impl Geometry {
    /// The classes of the input's pixels, all together every pixel once.
    pub(crate) fn classes(&self) -> Vec<Class> {
        let mut classes = Vec::new();
        // A stride may be longer than the map; every pixel is then a class.
        for first_down in 0..self.stride[0].min(self.input[0]) {
            for first_along in 0..self.stride[1].min(self.input[1]) {
                let first = [first_down, first_along];
                let remainder @ [down, along] =
                    std::array::from_fn(|axis| (first[axis] + self.before[axis]) % self.stride[axis]);
                let size = std::array::from_fn(|axis| (self.input[axis] - first[axis]).div_ceil(self.stride[axis]));
                let met = |[i, j]: &[usize; 2]| {
                    i * self.dilation[0] % self.stride[0] == down && j * self.dilation[1] % self.stride[1] == along
                };
                classes.push(Class {
                    remainder,
                    first,
                    size,
                    taps: self.taps().into_iter().filter(met).collect(),
                });
            }
        }
        classes
    }
}

impl Class {
    /// Where the rows of the class go in a map of the input's size with `channels`, of which the group's start at
    /// `first_channel`.
    pub(crate) fn target(&self, geometry: &Geometry, channels: usize, first_channel: usize) -> Target {
        let [height, width] = geometry.input;
        Target {
            start: (self.first[0] * width + self.first[1]) * channels + first_channel,
            grid: self.size,
            strides: [
                height * width * channels,
                geometry.stride[0] * width * channels,
                geometry.stride[1] * channels,
            ],
        }
    }

    /// The output pixel along one axis that meets pixel `n` of the class at kernel pixel `k`.
    pub(crate) fn met(&self, geometry: &Geometry, axis: usize, n: usize, k: usize) -> Option<usize> {
        let position = self.first[axis] + n * geometry.stride[axis] + geometry.before[axis];
        let position = position.checked_sub(k * geometry.dilation[axis])?;
        debug_assert_eq!(position % geometry.stride[axis], 0, "{:?}", self.remainder);
        let o = position / geometry.stride[axis];
        (o < geometry.output[axis]).then_some(o)
    }
}

/// The output pixels that see every input pixel of a class: a row per input pixel, a run per kernel pixel.
pub(crate) struct SeenBy<'a> {
    pub(crate) geometry: Geometry,
    pub(crate) class: &'a Class,
    /// Channels of the output map.
    pub(crate) channels: usize,
    /// The group's channels: the first, and how many.
    pub(crate) group: [usize; 2],
}

impl Rows for SeenBy<'_> {
    type Origin = [usize; 3];

    fn count(&self) -> usize {
        self.geometry.batch * self.class.size[0] * self.class.size[1]
    }
    fn taps(&self) -> usize {
        self.class.taps.len()
    }
    fn depth(&self, _tap: usize) -> usize {
        self.group[1]
    }
    fn step(&self) -> usize {
        1
    }
    fn origin(&self, row: usize) -> [usize; 3] {
        let [height, width] = self.class.size;
        [row / width / height, row / width % height, row % width]
    }
    fn locate(&self, [image, y, x]: [usize; 3], tap: usize) -> Option<usize> {
        let [height, width] = self.geometry.output;
        let [i, j] = self.class.taps[tap];
        let y = self.class.met(&self.geometry, 0, y, i)?;
        let x = self.class.met(&self.geometry, 1, x, j)?;
        Some(((image * height + y) * width + x) * self.channels + self.group[0])
    }
}

/// What every value of the kernel sees: a row per kernel pixel and input channel, a run per row of the output maps.
///
/// The map must be padded already, so that no run is cut.
pub(crate) struct SeenByKernel {
    /// Of the padded map: `before` is zero.
    pub(crate) geometry: Geometry,
    /// Channels of the map.
    pub(crate) channels: usize,
    /// The group's channels: the first, and how many.
    pub(crate) group: [usize; 2],
}

impl Rows for SeenByKernel {
    type Origin = usize;

    fn count(&self) -> usize {
        self.geometry.kernel[0] * self.geometry.kernel[1] * self.group[1]
    }
    fn taps(&self) -> usize {
        self.geometry.batch * self.geometry.output[0]
    }
    fn depth(&self, _tap: usize) -> usize {
        self.geometry.output[1]
    }
    fn step(&self) -> usize {
        self.geometry.stride[1] * self.channels
    }
    fn origin(&self, row: usize) -> usize {
        let (pixel, channel) = (row / self.group[1], row % self.group[1]);
        let [i, j] = [pixel / self.geometry.kernel[1], pixel % self.geometry.kernel[1]];
        let [down, along] = self.geometry.dilation;
        (i * down * self.geometry.input[1] + j * along) * self.channels + self.group[0] + channel
    }
    fn locate(&self, origin: usize, tap: usize) -> Option<usize> {
        let [height, width] = self.geometry.input;
        let (image, y) = (tap / self.geometry.output[0], tap % self.geometry.output[0]);
        Some((image * height + y * self.geometry.stride[0]) * width * self.channels + origin)
    }
}
