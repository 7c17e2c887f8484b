//! From a test of a frame to a classic packet filter. The kernel ends such a program with 0, which would let the frame
//! pass, where it reads behind the frame's end; so each read is preceded by a look at the length, and a frame that is too
//! short for a test that it comes to is dropped. Pure.

use blockhost_netlink::guard::{DROP, GO_ON, Instruction};

/// A question about a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// The bits of `mask` in the field at `at` are those of `value`.
    Field {
        /// Bytes from the beginning of the frame.
        at: u32,
        /// How much of it.
        size: Size,
        /// Which bits.
        mask: u32,
        /// What they are.
        value: u32,
    },
    /// It bears a VLAN tag (which the kernel takes out of the frame before a program sees it).
    Tagged,
    /// None of these is false.
    All(Vec<Test>),
    /// One of these is true.
    Any(Vec<Test>),
    /// The opposite.
    Not(Box<Test>),
}

/// Width of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Half,
    /// 32 bits.
    Word,
}

impl Size {
    const fn bytes(self) -> u32 {
        match self {
            Size::Byte => 1,
            Size::Half => 2,
            Size::Word => 4,
        }
    }

    const fn load(self) -> u16 {
        match self {
            Size::Byte => LOAD_BYTE,
            Size::Half => LOAD_HALF,
            Size::Word => LOAD_WORD,
        }
    }
}

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_LENGTH: u16 = 0x80;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
/// Where the kernel shows whether there is a tag (`SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT`).
const TAG_PRESENT: u32 = 0xffff_f000 + 48;

/// The program that lets pass what the test is true of, and drops the rest; `None` where a jump leads too far.
pub fn compile(test: &Test) -> Option<Vec<Instruction>> {
    let mut code = Backwards::default();
    let drop = code.put(RETURN, DROP);
    let pass = code.put(RETURN, GO_ON);
    let start = code.test(test, pass, drop, drop)?;
    code.jump(start)?;
    code.0.reverse();
    Some(code.0)
}

/// A program from its end, for jumps only lead forward.
#[derive(Default)]
struct Backwards(Vec<Instruction>);

/// An instruction, by its number from the end.
#[derive(Clone, Copy)]
struct Label(usize);

impl Backwards {
    fn put(&mut self, code: u16, k: u32) -> Label {
        self.0.push(Instruction {
            code,
            yes: 0,
            no: 0,
            k,
        });
        Label(self.0.len() - 1)
    }

    /// Instructions to skip from the next one to a label.
    fn distance(&self, to: Label) -> usize {
        self.0.len() - to.0 - 1
    }

    fn jump(&mut self, to: Label) -> Option<Label> {
        let distance = u32::try_from(self.distance(to)).ok()?;
        Some(self.put(JUMP, distance))
    }

    /// The label, or a jump to it where the two branches after here do not reach it.
    fn near(&mut self, to: Label) -> Option<Label> {
        if self.distance(to) < usize::from(u8::MAX) - 1 {
            return Some(to);
        }
        self.jump(to)
    }

    fn branch(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Option<()> {
        let (yes, no) = (self.near(yes)?, self.near(no)?);
        let skip = |to| u8::try_from(self.distance(to)).ok();
        let (yes, no) = (skip(yes)?, skip(no)?);
        self.0.push(Instruction { code, yes, no, k });
        Some(())
    }

    /// Puts a test that leads to one of two labels, or to `short`; where it begins.
    fn test(&mut self, test: &Test, yes: Label, no: Label, short: Label) -> Option<Label> {
        match test {
            Test::Field {
                at,
                size,
                mask,
                value,
            } => {
                self.branch(IF_EQUAL, *value, yes, no)?;
                self.put(AND, *mask);
                let load = self.put(size.load(), *at);
                self.branch(IF_AT_LEAST, at.checked_add(size.bytes())?, load, short)?;
                Some(self.put(LOAD_LENGTH, 0))
            }
            Test::Tagged => {
                self.branch(IF_EQUAL, 0, no, yes)?;
                Some(self.put(LOAD_BYTE, TAG_PRESENT))
            }
            Test::All(tests) => tests
                .iter()
                .rev()
                .try_fold(yes, |next, test| self.test(test, next, no, short)),
            Test::Any(tests) => tests
                .iter()
                .rev()
                .try_fold(no, |next, test| self.test(test, yes, next, short)),
            Test::Not(test) => self.test(test, no, yes, short),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the kernel does with such a program: 0 for a read behind the end.
    pub fn run(program: &[Instruction], frame: &[u8], tagged: bool) -> u32 {
        let (mut at, mut a) = (0, 0);
        let read = |from: u32, bytes: usize| {
            let from = usize::try_from(from).ok()?;
            let field = frame.get(from..from.checked_add(bytes)?)?;
            Some(
                field
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | u32::from(*byte)),
            )
        };
        loop {
            let now = program[at];
            at += 1;
            let mut read_or_end = |bytes| read(now.k, bytes).map(|field| a = field);
            let skip = match now.code {
                LOAD_BYTE if now.k == TAG_PRESENT => {
                    a = u32::from(tagged);
                    0
                }
                LOAD_BYTE | LOAD_HALF | LOAD_WORD => {
                    let bytes = match now.code {
                        LOAD_BYTE => 1,
                        LOAD_HALF => 2,
                        _ => 4,
                    };
                    if read_or_end(bytes).is_none() {
                        return 0;
                    }
                    0
                }
                LOAD_LENGTH => {
                    a = u32::try_from(frame.len()).unwrap();
                    0
                }
                AND => {
                    a &= now.k;
                    0
                }
                JUMP => usize::try_from(now.k).unwrap(),
                IF_EQUAL | IF_AT_LEAST => {
                    let holds = if now.code == IF_EQUAL {
                        a == now.k
                    } else {
                        a >= now.k
                    };
                    usize::from(if holds { now.yes } else { now.no })
                }
                RETURN => return now.k,
                other => panic!("no such instruction: {other:#x}"),
            };
            at += skip;
        }
    }

    /// What a test says of a frame; `None` where the frame is too short.
    fn says(test: &Test, frame: &[u8], tagged: bool) -> Option<bool> {
        match test {
            Test::Field {
                at,
                size,
                mask,
                value,
            } => {
                let (at, bytes) = (*at as usize, size.bytes() as usize);
                let field = frame.get(at..at + bytes)?;
                let field = field
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | u32::from(*byte));
                Some(field & mask == *value)
            }
            Test::Tagged => Some(tagged),
            Test::All(tests) => {
                for test in tests {
                    if !says(test, frame, tagged)? {
                        return Some(false);
                    }
                }
                Some(true)
            }
            Test::Any(tests) => {
                for test in tests {
                    if says(test, frame, tagged)? {
                        return Some(true);
                    }
                }
                Some(false)
            }
            Test::Not(test) => says(test, frame, tagged).map(|said| !said),
        }
    }

    fn a_test() -> impl Strategy<Value = Test> {
        let size = prop_oneof![Just(Size::Byte), Just(Size::Half), Just(Size::Word)];
        let field =
            (0u32..12, size, 0u32..4, 0u32..3).prop_map(|(at, size, mask, value)| Test::Field {
                at,
                size,
                mask,
                value,
            });
        let leaf = prop_oneof![9 => field, 1 => Just(Test::Tagged)];
        leaf.prop_recursive(5, 200, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Test::All),
                prop::collection::vec(inner.clone(), 0..8).prop_map(Test::Any),
                inner.prop_map(|test| Test::Not(Box::new(test))),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_program_does_what_its_test_says_and_never_reads_behind_the_end(
            test in a_test(),
            frame in prop::collection::vec(0u8..4, 0..16),
            tagged: bool,
        ) {
            let program = compile(&test).unwrap();
            let expected = match says(&test, &frame, tagged) {
                Some(true) => GO_ON,
                Some(false) | None => DROP,
            };
            prop_assert_eq!(run(&program, &frame, tagged), expected);
        }
    }

    #[test]
    fn a_jump_over_thousands_of_instructions_arrives() {
        let is = |value| Test::Field {
            at: 0,
            size: Size::Byte,
            mask: 0xff,
            value,
        };
        let any = Test::Any((1..=200).map(is).collect());
        let all = Test::All(vec![any.clone(), Test::Not(Box::new(any.clone())), any]);
        for (test, first, expected) in [
            (&Test::Any(vec![all.clone(), is(0)]), 0, GO_ON),
            (&Test::Any(vec![all.clone(), is(0)]), 200, DROP),
            (&all, 1, DROP),
        ] {
            let program = compile(test).unwrap();
            assert!(program.len() > 1000);
            assert_eq!(run(&program, &[first], false), expected, "{first}");
        }
    }
}
