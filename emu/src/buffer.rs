//! Memory that kernels work on, between two guard bands.

use std::cell::UnsafeCell;

/// Bytes of each guard band: all ones, which reads as NaN in fp32 and bf16 and as -1 in integers.
const GUARD: usize = 256;

/// Device memory of the emulator. Writes beyond its ends are noticed after a launch; reads beyond them give NaN.
pub struct Buffer {
    // Whole 16-byte words, so that vector accesses are aligned.
    words: UnsafeCell<Vec<u128>>,
    bytes: usize,
}

impl Buffer {
    /// `bytes` bytes of NaN.
    pub fn poisoned(bytes: usize) -> Self {
        Buffer { words: UnsafeCell::new(vec![u128::MAX; (bytes + 2 * GUARD).div_ceil(16)]), bytes }
    }

    fn from_bytes(data: &[u8]) -> Self {
        let b = Self::poisoned(data.len());
        // SAFETY: the buffer has room for them, and nobody else knows of it yet.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), b.pointer(), data.len()) };
        b
    }

    /// A copy of fp32 numbers.
    pub fn f32(data: &[f32]) -> Self {
        Self::from_bytes(&data.iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<_>>())
    }

    /// fp32 numbers, rounded to bf16.
    pub fn bf16(data: &[f32]) -> Self {
        Self::from_bytes(
            &data
                .iter()
                .flat_map(|&v| ((bf16_round(v).to_bits() >> 16) as u16).to_ne_bytes())
                .collect::<Vec<_>>(),
        )
    }

    /// A copy of integers.
    pub fn i32(data: &[i32]) -> Self {
        Self::from_bytes(&data.iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<_>>())
    }

    /// The address of the first byte between the guards.
    pub fn pointer(&self) -> *mut u8 {
        // SAFETY: the offset lies within the allocation.
        unsafe { (*self.words.get()).as_mut_ptr().cast::<u8>().add(GUARD) }
    }

    /// The content.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: between launches nobody writes; a launch holds no reference from here.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.bytes) }
    }

    /// Overwrites some bytes.
    pub fn write(&self, offset: usize, data: &[u8]) {
        assert!(offset + data.len() <= self.bytes, "a write beyond a buffer's end");
        // SAFETY: just checked to lie between the guards; between launches nobody else reads or writes, and no reference
        // to the content outlives a call from this thread (the type is not `Sync`).
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.pointer().add(offset), data.len()) };
    }

    /// Read as fp32.
    pub fn to_f32(&self) -> Vec<f32> {
        self.bytes().chunks_exact(4).map(|c| f32::from_ne_bytes(c.try_into().unwrap())).collect()
    }

    /// Read as bf16.
    pub fn to_bf16(&self) -> Vec<f32> {
        self.bytes()
            .chunks_exact(2)
            .map(|c| f32::from_bits(u32::from(u16::from_ne_bytes(c.try_into().unwrap())) << 16))
            .collect()
    }

    /// Read as integers.
    pub fn to_i32(&self) -> Vec<i32> {
        self.bytes().chunks_exact(4).map(|c| i32::from_ne_bytes(c.try_into().unwrap())).collect()
    }

    /// Fails if a guard was written to.
    pub fn check(&self) -> Result<(), String> {
        // SAFETY: the whole allocation, read between launches.
        let all = unsafe {
            let words = &*self.words.get();
            std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), words.len() * 16)
        };
        match (0..GUARD).chain(GUARD + self.bytes..all.len()).find(|&i| all[i] != 0xff) {
            None => Ok(()),
            Some(i) if i < GUARD => Err(format!("written {} bytes before its start", GUARD - i)),
            Some(i) => Err(format!("written {} bytes behind its end", i - GUARD - self.bytes)),
        }
    }
}

/// The nearest bf16 number, ties to even.
pub fn bf16_round(v: f32) -> f32 {
    if v.is_nan() {
        return v;
    }
    let b = v.to_bits();
    f32::from_bits(b.wrapping_add(0x7fff + ((b >> 16) & 1)) & 0xffff_0000)
}
