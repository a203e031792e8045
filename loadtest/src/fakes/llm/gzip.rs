//! Valid gzip that compresses nothing (stored blocks): enough to see whether the other side expects
//! compression, without a dependency. No bombs: those need real compression.

use bytes::{BufMut, Bytes, BytesMut};

/// A gzip member being written.
#[derive(Debug)]
pub(super) struct Gzip {
    begun: bool,
    crc: u32,
    /// Bytes so far, modulo 2^32 as the format has it.
    len: u32,
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self { begun: false, crc: u32::MAX, len: 0 }
    }

    fn head(&mut self, out: &mut BytesMut) {
        if !self.begun {
            self.begun = true;
            // Magic, deflate, no flags, no time, no hints, unknown system.
            out.put_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
        }
    }

    pub(super) fn piece(&mut self, data: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        self.head(&mut out);
        for block in data.chunks(usize::from(u16::MAX)) {
            let len = u16::try_from(block.len()).unwrap_or(u16::MAX);
            out.put_u8(0);
            out.put_u16_le(len);
            out.put_u16_le(!len);
            out.put_slice(block);
            self.len = self.len.wrapping_add(u32::from(len));
        }
        for byte in data {
            self.crc ^= u32::from(*byte);
            for _ in 0..8 {
                self.crc = (self.crc >> 1) ^ (0xedb8_8320 & (self.crc & 1).wrapping_neg());
            }
        }
        out.freeze()
    }

    pub(super) fn end(mut self) -> Bytes {
        let mut out = BytesMut::new();
        self.head(&mut out);
        // A last, empty block.
        out.put_slice(&[1, 0, 0, 255, 255]);
        out.put_u32_le(!self.crc);
        out.put_u32_le(self.len);
        out.freeze()
    }

    /// All of a document at once.
    pub(super) fn whole(data: &[u8]) -> Bytes {
        let mut gzip = Self::new();
        let mut out = BytesMut::from(gzip.piece(data).as_ref());
        out.put_slice(&gzip.end());
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::Gzip;

    #[test]
    fn the_checksum_is_the_published_one() {
        // CRC-32 of "123456789", the check value every catalogue of CRCs gives.
        let whole = Gzip::whole(b"123456789");
        let trailer = &whole[whole.len() - 8..];
        assert_eq!(trailer, [0x26, 0x39, 0xf4, 0xcb, 9, 0, 0, 0]);
        assert_eq!(&whole[15..24], b"123456789");
    }
}
