// Personal data in text: mail and IP addresses, phone numbers, Chinese resident identity numbers
// (GB 11643, by their check digit), payment cards (by network and Luhn's check digit).
//
// Addresses that name no machine (loopback, unspecified, netmasks) stay. Digits joined by single
// blanks or hyphens are one number: it is taken as a whole or not at all.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace quern {

struct PiiSpan {
  size_t begin, end;      // bytes of the text
  std::string_view kind;  // email, ipv4, ipv6, phone_us, phone_intl, phone_cn_mobile, id_cn, card
  std::string_view mask;  // <EMAIL>, <IP>, <PHONE>, <ID>, <CARD>
};

// In the order of the text; spans do not overlap. Linear in the text.
std::vector<PiiSpan> find_pii(std::string_view text);

}  // namespace quern
