//! Blocks of codes and symbols drawn by lot: what no compressor writes, but a stream may have.

use super::MOST;
use super::random::Random;

const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const LENGTH: [usize; 29] =
    [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];

/// Appends a stream of one to four blocks, without zlib's header and checksum.
pub fn write(stored: &mut Vec<u8>, random: &mut Random) {
    let mut bits = Bits { stored, next: 0, count: 0 };
    let mut written = 0;
    let blocks = 1 + random.small(4);
    for block in 0..blocks {
        bits.put(usize::from(block + 1 == blocks), 1);
        match random.below(16) {
            0 => {
                bits.put(0, 2);
                bits.pad();
                let len = random.small(200);
                bits.put(len, 16);
                bits.put(!len & 0xFFFF, 16);
                (0..len).for_each(|_| bits.put(random.below(256), 8));
                written += len;
            }
            1..4 => {
                bits.put(1, 2);
                let mut literals = [8; 288];
                literals[144..256].fill(9);
                literals[256..280].fill(7);
                written = symbols(&mut bits, random, &Code::new(&literals), &Code::new(&[5; 32]), written);
            }
            _ => {
                bits.put(2, 2);
                let (literals, distances) = codes(random);
                header(&mut bits, random, &literals, &distances);
                written = symbols(&mut bits, random, &Code::new(&literals), &Code::new(&distances), written);
            }
        }
        if written > MOST {
            break;
        }
    }
    bits.pad();
}

/// Lengths of the codewords of literals and lengths, and of distances.
fn codes(random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    let mut literals = vec![0; 257 + random.below(30)];
    let (deep, most) = (1 + random.small(4), literals.len() - 1);
    let count = 1 + if random.one_in(2) { random.small(most) } else { random.below(most) };
    let mut lengths = split(count, 15, deep, random);
    lengths.swap(0, random.below(count));
    literals[256] = lengths[0];
    // The end of the block has one of them; the others go to symbols by lot, lengths of matches more often than literals.
    for &length in &lengths[1..] {
        let all = literals.len();
        let symbol = if random.one_in(3) { 257 + random.below(all - 257) } else { random.below(all) };
        if let Some(free) = (0..all).map(|step| (symbol.min(all - 1) + step) % all).find(|&at| literals[at] == 0) {
            literals[free] = length;
        }
    }
    let mut distances = vec![0; 1 + random.below(30)];
    let count = random.below(distances.len() + 1);
    for (at, length) in split(count, 15, deep, random).into_iter().enumerate() {
        distances[at] = length;
    }
    for at in 0..distances.len() {
        distances.swap(at, random.below(at + 1));
    }
    if random.one_in(50) {
        let at = random.below(literals.len());
        literals[at] = random.below(16) as u8;
    }
    (literals, distances)
}

/// Lengths of a complete code of `count` codewords, `longest` at most: leaves of a tree, split until there are enough.
fn split(count: usize, longest: u8, deep: usize, random: &mut Random) -> Vec<u8> {
    let mut leaves = Vec::with_capacity(count);
    if count > 0 {
        leaves.push(u8::from(count == 1));
    }
    while leaves.len() < count {
        // With a lot of `deep`, the last leaves rather than all of them: codes with long codewords.
        let reach = if deep > 2 { leaves.len().min(deep) } else { leaves.len() };
        let at = leaves.len() - 1 - random.below(reach);
        let at = if leaves[at] < longest { at } else { random.below(leaves.len()) };
        if leaves[at] < longest {
            leaves[at] += 1;
            leaves.push(leaves[at]);
        }
    }
    leaves
}

/// The header of a dynamic block.
fn header(bits: &mut Bits, random: &mut Random, literals: &[u8], distances: &[u8]) {
    bits.put(literals.len() - 257, 5);
    bits.put(distances.len() - 1, 5);
    let mut lengths = split(19, 7, 1, random);
    for at in 0..19 {
        lengths.swap(at, random.below(at + 1));
    }
    bits.put(15, 4);
    ORDER.iter().for_each(|&symbol| bits.put(usize::from(lengths[symbol]), 3));
    let code = Code::new(&lengths);
    let all = [literals, distances].concat();
    let mut at = 0;
    while at < all.len() {
        let same = all[at..].iter().take_while(|&&length| length == all[at]).count();
        let again = if at > 0 && all[at - 1] == all[at] { same } else { 0 };
        if all[at] == 0 && same >= 11 {
            let times = same.min(138);
            code.put(bits, 18);
            bits.put(times - 11, 7);
            at += times;
        } else if all[at] == 0 && same >= 3 {
            let times = same.min(10);
            code.put(bits, 17);
            bits.put(times - 3, 3);
            at += times;
        } else if again >= 3 {
            let times = again.min(6);
            code.put(bits, 16);
            bits.put(times - 3, 2);
            at += times;
        } else {
            code.put(bits, usize::from(all[at]));
            at += 1;
        }
    }
}

/// Symbols and the end of the block; returns how many bytes they give.
fn symbols(bits: &mut Bits, random: &mut Random, literals: &Code, distances: &Code, mut written: usize) -> usize {
    let count = random.small(250);
    // Few of the symbols, so that it is not always literals.
    let mut favourites = [0; 8];
    favourites.iter_mut().for_each(|favourite| *favourite = literals.draw(random));
    for _ in 0..count {
        let symbol = if random.one_in(4) { literals.draw(random) } else { favourites[random.below(8)] };
        if symbol == 256 || written > MOST {
            continue;
        }
        if symbol < 256 {
            literals.put(bits, symbol);
            written += 1;
            continue;
        }
        // The distance first: without one that reaches no further than the start there is no match, most of the time.
        let far = distances.draw(random);
        let extra = (far / 2).saturating_sub(1);
        let nearest = if far < 4 { far + 1 } else { ((2 + far % 2) << extra) + 1 };
        let is_good = far < 30 && nearest <= written && distances.lengths[far] != 0;
        if !is_good && !random.one_in(100) {
            continue;
        }
        let reach = if is_good { (written - nearest).min((1 << extra) - 1) } else { (1 << extra) - 1 };
        literals.put(bits, symbol);
        if let Some(&shortest) = LENGTH.get(symbol - 257) {
            let wide = if (265..285).contains(&symbol) { (symbol - 261) / 4 } else { 0 };
            let added = random.below(1 << wide);
            bits.put(added, wide as u32);
            written += shortest + added;
        }
        distances.put(bits, far);
        bits.put(random.below(reach + 1), extra as u32);
    }
    literals.put(bits, 256);
    written
}

/// Codewords by symbol, and the symbols that have one.
struct Code {
    lengths: [u8; 288],
    codewords: [u16; 288],
    used: [u16; 288],
    count: usize,
}

impl Code {
    fn new(lengths: &[u8]) -> Self {
        let mut code = Self { lengths: [0; 288], codewords: [0; 288], used: [0; 288], count: 0 };
        code.lengths[..lengths.len()].copy_from_slice(lengths);
        let mut codeword = 0_u32;
        for length in 1..16_u8 {
            for symbol in 0..lengths.len() {
                if lengths[symbol] == length {
                    code.codewords[symbol] = (codeword as u16).reverse_bits() >> (16 - length);
                    codeword += 1;
                    code.used[code.count] = symbol as u16;
                    code.count += 1;
                }
            }
            codeword <<= 1;
        }
        code
    }

    fn draw(&self, random: &mut Random) -> usize {
        usize::from(self.used[random.below(self.count)])
    }

    fn put(&self, bits: &mut Bits, symbol: usize) {
        bits.put(usize::from(self.codewords[symbol]), u32::from(self.lengths[symbol]));
    }
}

/// Bits on their way into bytes, lowest first.
struct Bits<'a> {
    stored: &'a mut Vec<u8>,
    next: u64,
    count: u32,
}

impl Bits<'_> {
    fn put(&mut self, value: usize, width: u32) {
        self.next |= (value as u64) << self.count;
        self.count += width;
        while self.count >= 8 {
            self.stored.push(self.next as u8);
            self.next >>= 8;
            self.count -= 8;
        }
    }

    fn pad(&mut self) {
        self.put(0, (8 - self.count % 8) % 8);
    }
}
