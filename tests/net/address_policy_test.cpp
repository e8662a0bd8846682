#include "net/address_policy.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "support/support.h"

namespace quern::test {
namespace {

net::AddressKind kind(const char* text) {
  sockaddr_in six_or_four{};
  sockaddr_in6 six{};
  if (::inet_pton(AF_INET, text, &six_or_four.sin_addr) == 1) {
    six_or_four.sin_family = AF_INET;
    return net::kind_of(reinterpret_cast<const sockaddr&>(six_or_four));
  }
  EXPECT_EQ(::inet_pton(AF_INET6, text, &six.sin6_addr), 1) << text;
  six.sin6_family = AF_INET6;
  return net::kind_of(reinterpret_cast<const sockaddr&>(six));
}

// IANA's registries of special-purpose addresses, at the edges of their blocks.
TEST(AddressPolicy, KnowsWhatEachAddressIsFor) {
  using enum net::AddressKind;
  const std::pair<const char*, net::AddressKind> cases[] = {{"8.8.8.8", Public},
                                                            {"9.255.255.255", Public},
                                                            {"10.0.0.0", Private},
                                                            {"10.255.255.255", Private},
                                                            {"11.0.0.0", Public},
                                                            {"100.63.255.255", Public},
                                                            {"100.64.0.0", Private},
                                                            {"100.127.255.255", Private},
                                                            {"100.128.0.0", Public},
                                                            {"126.255.255.255", Public},
                                                            {"127.0.0.1", Loopback},
                                                            {"127.255.255.255", Loopback},
                                                            {"128.0.0.0", Public},
                                                            {"169.254.169.254", LinkLocal},
                                                            {"169.255.0.0", Public},
                                                            {"172.15.255.255", Public},
                                                            {"172.16.0.0", Private},
                                                            {"172.31.255.255", Private},
                                                            {"172.32.0.0", Public},
                                                            {"192.168.0.1", Private},
                                                            {"192.169.0.0", Public},
                                                            {"198.18.0.0", Other},
                                                            {"198.19.255.255", Other},
                                                            {"198.20.0.0", Public},
                                                            {"0.0.0.0", Other},
                                                            {"224.0.0.1", Other},
                                                            {"255.255.255.255", Other},
                                                            {"::1", Loopback},
                                                            {"::", Other},
                                                            {"::2", Other},
                                                            {"::ffff:127.0.0.1", Loopback},
                                                            {"::ffff:10.1.2.3", Private},
                                                            {"::ffff:8.8.8.8", Public},
                                                            {"64:ff9b::7f00:1", Loopback},
                                                            {"64:ff9b::808:808", Public},
                                                            {"64:ff9b:1::1", Private},
                                                            {"2002:7f00:1::", Loopback},
                                                            {"2002:808:808::", Public},
                                                            {"fc00::1", Private},
                                                            {"fdff::1", Private},
                                                            {"fe80::1", LinkLocal},
                                                            {"fec0::1", Private},
                                                            {"ff02::1", Other},
                                                            {"2001:db8::1", Other},
                                                            {"2001::1", Other},
                                                            {"2606:4700::1111", Public},
                                                            {"2a00::1", Public},
                                                            {"4000::1", Other}};
  for (const auto& [text, expected] : cases) {
    EXPECT_EQ(kind(text), expected) << text << " is " << net::name(kind(text));
  }
}

TEST(AddressPolicy, ComparesHostsAsNamesAre) {
  net::AddressPolicy policy;
  EXPECT_TRUE(policy.allows_host("anything"));
  EXPECT_FALSE(policy.restricts());
  policy.hosts = {"example.org", "*.Example.net"};
  EXPECT_TRUE(policy.restricts());
  for (const char* host : {"example.org", "EXAMPLE.org.", "a.example.net", "a.b.example.NET"}) {
    EXPECT_TRUE(policy.allows_host(host)) << host;
  }
  for (const char* host : {"a.example.org", "example.net", "badexample.net", "example.org.evil",
                           ".example.net", "", "127.0.0.1"}) {
    EXPECT_FALSE(policy.allows_host(host)) << host;
  }
  policy.ports = {443};
  EXPECT_TRUE(policy.allows_port(443));
  EXPECT_FALSE(policy.allows_port(80));
}

}  // namespace
}  // namespace quern::test
