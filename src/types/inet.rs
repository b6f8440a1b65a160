//! inet and cidr. The canonical form is `inet_send`'s: family, bits of the prefix, 1 for cidr, length, address.
use std::net::{IpAddr, Ipv6Addr};

use super::ValueError;

/// Which of the two types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    Inet,
    Cidr,
}

/// What Postgres sends as the family.
const FAMILY_4: u8 = 2;
const FAMILY_6: u8 = 3;

/// Text to canonical.
pub(super) fn canonical_text(text: &str, flavour: Flavour, out: &mut Vec<u8>) -> Result<(), ValueError> {
    Network::parse(text, flavour)?.encode(flavour, out);
    Ok(())
}

/// Binary to canonical.
pub(super) fn canonical_binary(bytes: &[u8], flavour: Flavour, out: &mut Vec<u8>) -> Result<(), ValueError> {
    Network::decode(bytes, flavour)?.encode(flavour, out);
    Ok(())
}

/// Canonical to text.
pub(super) fn render(canonical: &[u8], flavour: Flavour, out: &mut Vec<u8>) -> Result<(), ValueError> {
    Network::decode(canonical, flavour)?.print(flavour, out);
    Ok(())
}

/// Is this a binary address of this type?
pub(super) fn check(canonical: &[u8], flavour: Flavour) -> Result<(), ValueError> {
    Network::decode(canonical, flavour).map(|_| ())
}

/// An address with the length of its prefix.
struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Flavour::Inet => "inet",
            Flavour::Cidr => "cidr",
        }
    }
}

impl Network {
    /// Reads `address` or `address/prefix`, without white space. The address is written in full: the abbreviations of
    /// IPv4 that Postgres completes by class are refused.
    fn parse(text: &str, flavour: Flavour) -> Result<Network, ValueError> {
        let bad = ValueError::BadText { ty: flavour.name() };
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| bad)?;
        let prefix = match prefix {
            Some(digits) => prefix_length(digits).ok_or(bad)?,
            None => width(address),
        };
        Network { address, prefix }.checked(flavour).ok_or(bad)
    }

    /// Reads the binary form; which of the two types it says it is does not count.
    fn decode(bytes: &[u8], flavour: Flavour) -> Result<Network, ValueError> {
        let bad = ValueError::BadBinary { ty: flavour.name() };
        let [family, rest @ ..] = bytes else { return Err(ValueError::Short) };
        let size = match *family {
            FAMILY_4 => 4,
            FAMILY_6 => 16,
            _ => return Err(bad),
        };
        let [prefix, _, length, address @ ..] = rest else { return Err(ValueError::Short) };
        if usize::from(*length) != size || usize::from(*prefix) > size * 8 || address.len() > size {
            return Err(bad);
        }
        let address = match (<[u8; 4]>::try_from(address), <[u8; 16]>::try_from(address)) {
            (Ok(octets), _) if size == 4 => IpAddr::from(octets),
            (_, Ok(octets)) => IpAddr::from(octets),
            _ => return Err(ValueError::Short),
        };
        Network { address, prefix: *prefix }.checked(flavour).ok_or(bad)
    }

    /// The prefix fits, and a cidr has no bits to its right.
    fn checked(self, flavour: Flavour) -> Option<Network> {
        let width = width(self.address);
        let host_bits = u32::from(width.checked_sub(self.prefix)?);
        let bits = match self.address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        let beyond = 1_u128.checked_shl(host_bits).map_or(bits, |first| bits & (first - 1));
        (flavour == Flavour::Inet || beyond == 0).then_some(self)
    }

    /// Appends the canonical form.
    fn encode(&self, flavour: Flavour, out: &mut Vec<u8>) {
        let family = if self.address.is_ipv4() { FAMILY_4 } else { FAMILY_6 };
        out.extend([family, self.prefix, u8::from(flavour == Flavour::Cidr), width(self.address) / 8]);
        match self.address {
            IpAddr::V4(address) => out.extend(address.octets()),
            IpAddr::V6(address) => out.extend(address.octets()),
        }
    }

    /// Appends the text; an inet shows its prefix only when it is not the whole address.
    fn print(&self, flavour: Flavour, out: &mut Vec<u8>) {
        match self.address {
            IpAddr::V4(address) => out.extend(address.to_string().bytes()),
            IpAddr::V6(address) => print_6(address, out),
        }
        if flavour == Flavour::Cidr || self.prefix != width(self.address) {
            out.extend(format!("/{}", self.prefix).bytes());
        }
    }
}

/// Bits of an address.
fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Digits without a zero in front.
fn prefix_length(digits: &str) -> Option<u8> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if plain { digits.parse().ok() } else { None }
}

/// The longest run of zero groups, from two on, becomes `::`, the first of several; the last two groups are written as
/// IPv4 after six zero groups, or after five and ffff.
fn print_6(address: Ipv6Addr, out: &mut Vec<u8>) {
    let groups = address.segments();
    let (start, length) = longest_zeros(groups);
    let embedded = start == 0 && (length == 6 || (length == 5 && groups[5] == 0xffff));
    let mut text = String::new();
    for (i, group) in groups.iter().enumerate() {
        if (start..start + length).contains(&i) {
            if i == start {
                text.push(':');
            }
            continue;
        }
        if i > 0 {
            text.push(':');
        }
        if i == 6 && embedded {
            let [.., a, b, c, d] = address.octets();
            text += &format!("{a}.{b}.{c}.{d}");
            break;
        }
        text += &format!("{group:x}");
    }
    if length > 0 && start + length == groups.len() {
        text.push(':');
    }
    out.extend(text.bytes());
}

/// Start and length; length 0 when no two zero groups stand together.
fn longest_zeros(groups: [u16; 8]) -> (usize, usize) {
    let mut longest = (0, 0);
    let mut i = 0;
    while i < groups.len() {
        let length = groups[i..].iter().take_while(|group| **group == 0).count();
        if length >= 2 && length > longest.1 {
            longest = (i, length);
        }
        i += length.max(1);
    }
    longest
}
