#include "net/address_policy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "core/ascii.h"

namespace quern::net {
namespace {

struct Block4 {
  uint32_t first;
  int bits;
  AddressKind kind;
};
constexpr uint32_t ip4(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  return a << 24 | b << 16 | c << 8 | d;
}

// IANA's registry of special-purpose addresses.
constexpr Block4 kBlocks4[] = {
    {ip4(0, 0, 0, 0), 8, AddressKind::Other},
    {ip4(10, 0, 0, 0), 8, AddressKind::Private},
    {ip4(100, 64, 0, 0), 10, AddressKind::Private},
    {ip4(127, 0, 0, 0), 8, AddressKind::Loopback},
    {ip4(169, 254, 0, 0), 16, AddressKind::LinkLocal},
    {ip4(172, 16, 0, 0), 12, AddressKind::Private},
    {ip4(192, 0, 0, 0), 24, AddressKind::Other},
    {ip4(192, 0, 2, 0), 24, AddressKind::Other},
    {ip4(192, 88, 99, 0), 24, AddressKind::Other},
    {ip4(192, 168, 0, 0), 16, AddressKind::Private},
    {ip4(198, 18, 0, 0), 15, AddressKind::Other},
    {ip4(198, 51, 100, 0), 24, AddressKind::Other},
    {ip4(203, 0, 113, 0), 24, AddressKind::Other},
    {ip4(224, 0, 0, 0), 3, AddressKind::Other},  // multicast, reserved, broadcast
};

AddressKind kind_of4(uint32_t address) noexcept {
  for (const Block4& block : kBlocks4) {
    if ((address ^ block.first) >> (32 - block.bits) == 0) return block.kind;
  }
  return AddressKind::Public;
}

AddressKind kind_of6(const std::array<uint8_t, 16>& a) noexcept {
  const auto inner = [&](size_t at) {
    return kind_of4(ip4(a[at], a[at + 1], a[at + 2], a[at + 3]));
  };
  const auto zeros = [&](size_t from, size_t to) {
    return std::all_of(a.begin() + static_cast<long>(from), a.begin() + static_cast<long>(to),
                       [](uint8_t byte) { return byte == 0; });
  };
  if (zeros(0, 15) && a[15] == 1) return AddressKind::Loopback;
  if (zeros(0, 10) && a[10] == 0xFF && a[11] == 0xFF) return inner(12);  // mapped
  if (zeros(0, 12)) return AddressKind::Other;                      // unspecified, IPv4-compatible
  if (a[0] == 0 && a[1] == 0x64 && a[2] == 0xFF && a[3] == 0x9B) {  // NAT64
    return zeros(4, 12) ? inner(12) : AddressKind::Private;         // 64:ff9b:1::/48 is local
  }
  if (a[0] == 0x20 && a[1] == 0x02) return inner(2);  // 6to4
  if ((a[0] & 0xFE) == 0xFC) return AddressKind::Private;
  if (a[0] == 0xFE && (a[1] & 0xC0) == 0x80) return AddressKind::LinkLocal;
  if (a[0] == 0xFE && (a[1] & 0xC0) == 0xC0) return AddressKind::Private;  // site-local, of old
  if ((a[0] & 0xE0) != 0x20) return AddressKind::Other;  // outside 2000::/3, multicast too
  if (a[0] == 0x20 && a[1] == 0x01 && a[2] < 2) return AddressKind::Other;  // Teredo and others
  if (a[0] == 0x20 && a[1] == 0x01 && a[2] == 0x0D && a[3] == 0xB8) return AddressKind::Other;
  return AddressKind::Public;
}

std::string folded(std::string_view host) {
  if (host.ends_with('.')) host.remove_suffix(1);
  return ascii_lower(host);
}

}  // namespace

std::string_view name(AddressKind kind) noexcept {
  switch (kind) {
    case AddressKind::Public:
      return "public";
    case AddressKind::Loopback:
      return "loopback";
    case AddressKind::Private:
      return "private";
    case AddressKind::LinkLocal:
      return "link-local";
    case AddressKind::Other:
      break;
  }
  return "reserved";
}

AddressKind kind_of(const sockaddr& address) noexcept {
  if (address.sa_family == AF_UNIX) return AddressKind::Loopback;
  if (address.sa_family == AF_INET) {
    sockaddr_in in;
    std::memcpy(&in, &address, sizeof in);
    return kind_of4(ntohl(in.sin_addr.s_addr));
  }
  if (address.sa_family == AF_INET6) {
    sockaddr_in6 in;
    std::memcpy(&in, &address, sizeof in);
    std::array<uint8_t, 16> bytes;
    std::memcpy(bytes.data(), &in.sin6_addr, 16);
    return kind_of6(bytes);
  }
  return AddressKind::Other;
}

std::string text_of(const sockaddr& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.sa_family == AF_INET) {
    sockaddr_in in;
    std::memcpy(&in, &address, sizeof in);
    ::inet_ntop(AF_INET, &in.sin_addr, text, sizeof text);
  } else if (address.sa_family == AF_INET6) {
    sockaddr_in6 in;
    std::memcpy(&in, &address, sizeof in);
    ::inet_ntop(AF_INET6, &in.sin6_addr, text, sizeof text);
  }
  return text;
}

bool AddressPolicy::allows(AddressKind kind) const noexcept {
  return kinds.empty() || std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
}

bool AddressPolicy::allows_host(std::string_view host) const {
  const std::string wanted = folded(host);
  return hosts.empty() || std::any_of(hosts.begin(), hosts.end(), [&](const std::string& entry) {
           const std::string allowed = folded(entry);
           return allowed.starts_with("*.")
                      ? wanted.size() > allowed.size() - 1 &&
                            wanted.ends_with(std::string_view(allowed).substr(1))
                      : wanted == allowed;
         });
}

bool AddressPolicy::allows_port(uint16_t port) const noexcept {
  return ports.empty() || std::find(ports.begin(), ports.end(), port) != ports.end();
}

}  // namespace quern::net
