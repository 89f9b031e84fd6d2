
    /// The probabilities, by class.
    #[cfg(feature = "std")]
    pub fn softmax(&self) -> [f32; CLASSES] {
        let largest = self.0.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut probabilities = self.0.map(|logit| (logit - largest).exp());
        let sum: f32 = probabilities.iter().sum();
        probabilities.iter_mut().for_each(|p| *p /= sum);
        probabilities
    }

