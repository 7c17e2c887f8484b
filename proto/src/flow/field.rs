//! The fields of a packet that a flow can look at or write, as one table: name, width, syntax, where it may stand.

/// How a field's value is written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// Hardware address, with a mask after `/` in a match.
    Mac,
    /// IPv4 address, with a prefix length in a match.
    V4,
    /// IPv6 address, with a prefix length in a match.
    V6,
    /// `ip`, `ipv6`, `arp`, or a number from 1536.
    EthType,
    /// `icmp`, `tcp`, `udp`, `icmp6`, `sctp`, or a number.
    Proto,
    /// A tag, or `none` for packets without one.
    Vlan,
    /// A number, nothing else.
    Number,
    /// A number, or `{"value": V, "mask": M}` in a match.
    Masked,
    /// `no`, `yes`, `first`, `later`, `not_later`.
    Frag,
    /// `{"new": true, "inv": false}`: flags that must and must not be set.
    CtState,
}

/// What a match must say already before a field means anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    /// A VLAN tag.
    Tag,
    /// `dl_type` ip.
    V4,
    /// `dl_type` ipv6.
    V6,
    /// `dl_type` ip or ipv6.
    Ip,
    /// `dl_type` arp.
    Arp,
    /// `nw_proto` tcp, udp or sctp.
    Ports,
    /// `nw_proto` icmp with ip, or icmp6 with ipv6.
    Icmp,
    /// `icmp_type` 135 or 136 of IPv6.
    Nd,
    /// `icmp_type` 135 of IPv6: a solicitation.
    NdSolicit,
    /// `icmp_type` 136 of IPv6: an advertisement.
    NdAdvert,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) bits: u8,
    pub(super) syntax: Syntax,
    pub(super) needs: Needs,
    /// May be written by `set_field`, `load` and `move`.
    pub(super) writable: bool,
    /// Largest value, where that is less than the width allows.
    pub(super) max: u128,
    /// Class and number on the wire; see [`Field::oxm`] for those that depend on the protocol.
    oxm: (u16, u8),
}

macro_rules! fields {
    ($($Variant:ident = $name:literal, $bits:literal, $syntax:ident, $needs:ident, $writable:literal, ($class:expr, $number:literal) $(, max $max:expr)?;)+) => {
        /// A field, in the order in which a switch wants them: what others depend on comes first.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Field {
            $(#[doc = concat!("`", $name, "`")] $Variant,)+
        }

        impl Field {
            /// Every field.
            pub const ALL: &'static [Self] = &[$(Self::$Variant),+];

            pub(super) const fn spec(self) -> Spec {
                match self { $(Self::$Variant => Spec {
                    name: $name,
                    bits: $bits,
                    syntax: Syntax::$syntax,
                    needs: Needs::$needs,
                    writable: $writable,
                    max: fields!(@max $bits $(, $max)?),
                    oxm: ($class, $number),
                },)+ }
            }
        }
    };
    (@max $bits:literal) => { u128::MAX >> (128 - $bits) };
    (@max $bits:literal, $max:expr) => { $max };
}

/// OpenFlow's own fields.
const BASIC: u16 = 0x8000;
/// Open vSwitch's extensions.
const NXM1: u16 = 0x0001;
/// Integers beyond this are not the same for every JSON reader.
const SAFE: u128 = (1 << 53) - 1;

fields! {
    Metadata = "metadata", 64, Masked, Nothing, true, (BASIC, 2), max SAFE;
    DlDst = "dl_dst", 48, Mac, Nothing, true, (BASIC, 3);
    DlSrc = "dl_src", 48, Mac, Nothing, true, (BASIC, 4);
    DlType = "dl_type", 16, EthType, Nothing, false, (BASIC, 5);
    Vlan = "vlan", 13, Vlan, Nothing, true, (BASIC, 6);
    VlanPcp = "vlan_pcp", 3, Number, Tag, true, (BASIC, 7);
    IpDscp = "ip_dscp", 6, Number, Ip, true, (BASIC, 8);
    NwProto = "nw_proto", 8, Proto, Ip, false, (BASIC, 10);
    NwTtl = "nw_ttl", 8, Number, Ip, true, (NXM1, 29);
    NwFrag = "nw_frag", 2, Frag, Ip, false, (NXM1, 26);
    NwSrc = "nw_src", 32, V4, V4, true, (BASIC, 11);
    NwDst = "nw_dst", 32, V4, V4, true, (BASIC, 12);
    Ipv6Src = "ipv6_src", 128, V6, V6, true, (BASIC, 26);
    Ipv6Dst = "ipv6_dst", 128, V6, V6, true, (BASIC, 27);
    TpSrc = "tp_src", 16, Masked, Ports, true, (BASIC, 13);
    TpDst = "tp_dst", 16, Masked, Ports, true, (BASIC, 14);
    IcmpType = "icmp_type", 8, Number, Icmp, true, (BASIC, 19);
    IcmpCode = "icmp_code", 8, Number, Icmp, true, (BASIC, 20);
    ArpOp = "arp_op", 16, Number, Arp, true, (BASIC, 21), max 255;
    ArpSpa = "arp_spa", 32, V4, Arp, true, (BASIC, 22);
    ArpTpa = "arp_tpa", 32, V4, Arp, true, (BASIC, 23);
    ArpSha = "arp_sha", 48, Mac, Arp, true, (BASIC, 24);
    ArpTha = "arp_tha", 48, Mac, Arp, true, (BASIC, 25);
    NdTarget = "nd_target", 128, V6, Nd, true, (BASIC, 31);
    NdSll = "nd_sll", 48, Mac, NdSolicit, true, (BASIC, 32);
    NdTll = "nd_tll", 48, Mac, NdAdvert, true, (BASIC, 33);
    TunId = "tun_id", 64, Masked, Nothing, true, (BASIC, 38), max 0xffff_ffff;
    TunSrc = "tun_src", 32, V4, Nothing, false, (NXM1, 31);
    TunDst = "tun_dst", 32, V4, Nothing, false, (NXM1, 32);
    CtState = "ct_state", 32, CtState, Nothing, false, (NXM1, 105);
    CtZone = "ct_zone", 16, Number, Nothing, false, (NXM1, 106);
    CtMark = "ct_mark", 32, Masked, Nothing, false, (NXM1, 107);
    PktMark = "pkt_mark", 32, Masked, Nothing, true, (NXM1, 33);
    ConjId = "conj_id", 32, Number, Nothing, false, (NXM1, 37);
    Reg0 = "reg0", 32, Masked, Nothing, true, (NXM1, 0);
    Reg1 = "reg1", 32, Masked, Nothing, true, (NXM1, 1);
    Reg2 = "reg2", 32, Masked, Nothing, true, (NXM1, 2);
    Reg3 = "reg3", 32, Masked, Nothing, true, (NXM1, 3);
    Reg4 = "reg4", 32, Masked, Nothing, true, (NXM1, 4);
    Reg5 = "reg5", 32, Masked, Nothing, true, (NXM1, 5);
    Reg6 = "reg6", 32, Masked, Nothing, true, (NXM1, 6);
    Reg7 = "reg7", 32, Masked, Nothing, true, (NXM1, 7);
    Reg8 = "reg8", 32, Masked, Nothing, true, (NXM1, 8);
    Reg9 = "reg9", 32, Masked, Nothing, true, (NXM1, 9);
    Reg10 = "reg10", 32, Masked, Nothing, true, (NXM1, 10);
    Reg11 = "reg11", 32, Masked, Nothing, true, (NXM1, 11);
    Reg12 = "reg12", 32, Masked, Nothing, true, (NXM1, 12);
    Reg13 = "reg13", 32, Masked, Nothing, true, (NXM1, 13);
    Reg14 = "reg14", 32, Masked, Nothing, true, (NXM1, 14);
    Reg15 = "reg15", 32, Masked, Nothing, true, (NXM1, 15);
}

impl Field {
    /// The field of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|field| field.spec().name == name)
    }

    /// Its name in requests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.spec().name
    }

    /// Its width in bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.spec().bits
    }

    /// How its values are written.
    #[must_use]
    pub const fn syntax(self) -> Syntax {
        self.spec().syntax
    }

    /// Whether `set_field`, `load` and `move` may write it.
    #[must_use]
    pub const fn writable(self) -> bool {
        self.spec().writable
    }

    /// Whether nothing else of a flow depends on its value: what is good with one is good with any.
    pub(super) const fn is_independent(self) -> bool {
        !matches!(
            self,
            Self::DlType | Self::NwProto | Self::IcmpType | Self::Vlan
        )
    }

    /// How its values are written, as a phrase.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        super::matching::syntax_rule(self.spec().syntax)
    }

    /// Class and number of its header on the wire. Ports and ICMP types have one per protocol, `nw_proto`.
    #[must_use]
    pub const fn oxm(self, nw_proto: Option<u8>) -> (u16, u8) {
        const UDP: u8 = 17;
        const ICMP6: u8 = 58;
        const SCTP: u8 = 132;
        match (self, nw_proto) {
            (Self::TpSrc, Some(UDP)) => (BASIC, 15),
            (Self::TpDst, Some(UDP)) => (BASIC, 16),
            (Self::TpSrc, Some(SCTP)) => (BASIC, 17),
            (Self::TpDst, Some(SCTP)) => (BASIC, 18),
            (Self::IcmpType, Some(ICMP6)) => (BASIC, 29),
            (Self::IcmpCode, Some(ICMP6)) => (BASIC, 30),
            _ => self.spec().oxm,
        }
    }
}
