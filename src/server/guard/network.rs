//! Networks that addresses belong to, from one customer's to a whole provider's.

use std::net::IpAddr;

/// How many sizes of networks are told apart.
pub(in crate::server) const SIZES: usize = 3;

/// Their prefixes, for IPv4 and for IPv6: that of one customer first.
const PREFIXES: ([u32; SIZES], [u32; SIZES]) = ([32, 26, 21], [64, 48, 32]);

/// The networks of an address, the smallest first.
pub(in crate::server) fn networks(address: IpAddr) -> [IpAddr; SIZES] {
    let (v4, v6) = PREFIXES;
    match address.to_canonical() {
        IpAddr::V4(address) => v4.map(|prefix| {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or_default();
            IpAddr::V4((u32::from(address) & mask).into())
        }),
        IpAddr::V6(address) => v6.map(|prefix| {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or_default();
            IpAddr::V6((u128::from(address) & mask).into())
        }),
    }
}

/// The smallest network of an address: what one customer has.
pub(in crate::server) fn network(address: IpAddr) -> IpAddr {
    let [smallest, ..] = networks(address);
    smallest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_three_sizes() {
        let of = |address: &str| networks(address.parse().unwrap()).map(|it| it.to_string());
        assert_eq!(of("192.0.2.77"), ["192.0.2.77", "192.0.2.64", "192.0.0.0"]);
        assert_eq!(of("::ffff:192.0.2.77"), of("192.0.2.77"));
        assert_eq!(
            of("2001:db8:1:2:3::4"),
            ["2001:db8:1:2::", "2001:db8:1::", "2001:db8::"]
        );
    }

    #[test]
    fn one_ipv6_customer_is_one_address() {
        let one: IpAddr = "2001:db8:1:2:3::4".parse().unwrap();
        let other: IpAddr = "2001:db8:1:2:ffff::1".parse().unwrap();
        assert_eq!(network(one), network(other));
    }
}
