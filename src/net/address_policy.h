// Which hosts and addresses a client may reach. A name is judged before it is looked up; an address
// is judged when a socket to it is about to be opened, after the name was resolved and again after
// every redirect, so that a public name which points into a private network is refused as well.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

struct sockaddr;

namespace quern::net {

enum class AddressKind {
  Public,
  Loopback,   // 127.0.0.0/8, ::1, a Unix socket
  Private,    // RFC 1918, fc00::/7, carrier-grade NAT (100.64.0.0/10)
  LinkLocal,  // 169.254.0.0/16 (cloud metadata services), fe80::/10
  Other,      // unspecified, multicast, broadcast, reserved, documentation
};
std::string_view name(AddressKind kind) noexcept;

// IPv4 addresses inside IPv6 ones (mapped, NAT64, 6to4) are judged as the IPv4 address.
AddressKind kind_of(const sockaddr& address) noexcept;
// "10.0.0.1", "[::1]:80" without the port.
std::string text_of(const sockaddr& address);

struct AddressPolicy {
  std::vector<AddressKind> kinds;  // that may be reached; empty: all
  std::vector<std::string> hosts;  // "example.org", "*.example.org" (below it); empty: all
  std::vector<uint16_t> ports;     // empty: all

  static AddressPolicy public_only() { return {.kinds = {AddressKind::Public}}; }

  // A proxy would look up names and open sockets where this can't be seen.
  bool restricts() const noexcept { return !kinds.empty() || !hosts.empty() || !ports.empty(); }
  bool allows(AddressKind kind) const noexcept;
  // Host names are compared without case and without a final dot.
  bool allows_host(std::string_view host) const;
  bool allows_port(uint16_t port) const noexcept;
};

}  // namespace quern::net
