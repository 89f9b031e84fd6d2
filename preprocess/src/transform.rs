use super::Picture;
use super::error::{Error, check_length};
use super::geometry::{Geometry, check_target, geometry};
use super::resample::resize_crop;

/// ImageNet's mean of R, G, B, on the scale 0 to 1.
pub const MEAN: [f32; 3] = [0.485, 0.456, 0.406];

/// ImageNet's standard deviation of R, G, B, on the scale 0 to 1.
pub const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// `NORMALISED[channel][byte]`, in the order of torchvision's float32 operations, each rounded.
const NORMALISED: [[f32; 256]; 3] = {
    let mut table = [[0.0; 256]; 3];
    let mut channel = 0;
    while channel < 3 {
        let mut byte = 0;
        while byte < 256 {
            table[channel][byte] = (byte as f32 / 255.0 - MEAN[channel]) / STD[channel];
            byte += 1;
        }
        channel += 1;
    }
    table
};

/// The test transform for one input size of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transform {
    height: u32,
    width: u32,
}

impl Transform {
    /// The transform to `height` x `width`, in pixels, in the order of the network's input
    /// `[N, 3, height, width]`.
    ///
    /// # Errors
    ///
    /// [`Error::TargetSize`] if a side is zero or above [`MAX_TARGET_SIDE`].
    ///
    /// [`MAX_TARGET_SIDE`]: super::MAX_TARGET_SIDE
    pub fn new(height: u32, width: u32) -> Result<Self, Error> {
        check_target(height, width)?;
        Ok(Self { height, width })
    }

    /// Of the crop, in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Of the crop, in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// To which size `picture` is resized, and where the crop is taken.
    pub fn geometry(&self, picture: &Picture<'_>) -> Geometry {
        geometry(picture, self.height, self.width)
    }

    /// The whole transform: the network's input `[3, height, width]`.
    pub fn apply(&self, picture: &Picture<'_>) -> Vec<f32> {
        let crop = self.crop(picture);
        let mut planes = vec![0.0; crop.len()];
        normalize(&crop, &mut planes);
        planes
    }

    /// Resize and centre crop: RGB bytes `[height, width, 3]`, to look at or to normalise.
    pub fn crop(&self, picture: &Picture<'_>) -> Vec<u8> {
        resize_crop(
            picture,
            &self.geometry(picture),
            self.height as usize,
            self.width as usize,
        )
    }

    /// Turns a crop `[height, width, 3]` into the network's input `[3, height, width]`, written
    /// into `planes`: one slot of a batch, say.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] unless both have `height * width * 3` elements.
    pub fn normalize_into(&self, crop: &[u8], planes: &mut [f32]) -> Result<(), Error> {
        let expected = u64::from(self.height) * u64::from(self.width) * 3;
        check_length("a crop [height, width, 3]", expected, crop.len())?;
        check_length("the planes [3, height, width]", expected, planes.len())?;
        normalize(crop, planes);
        Ok(())
    }
}

/// Bytes to floats, pixels to planes. `crop` and `planes` are equally long and not empty.
fn normalize(crop: &[u8], planes: &mut [f32]) {
    let area = planes.len() / 3;
    for (channel, plane) in planes.chunks_exact_mut(area).enumerate() {
        let table = &NORMALISED[channel];
        for (value, pixel) in plane.iter_mut().zip(crop.chunks_exact(3)) {
            *value = table[usize::from(pixel[channel])];
        }
    }
}
