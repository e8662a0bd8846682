#include "data/stages/pii.h"

#include <arpa/inet.h>

#include <algorithm>
#include <optional>

namespace quern {
namespace {

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
bool is_letter(char c) noexcept { return static_cast<unsigned char>((c | 0x20) - 'a') < 26; }
bool is_alnum(char c) noexcept { return is_digit(c) || is_letter(c); }
bool is_hex(char c) noexcept {
  return is_digit(c) || static_cast<unsigned char>((c | 0x20) - 'a') < 6;
}

class Finder {
 public:
  explicit Finder(std::string_view text) : text_(text) {}

  std::vector<PiiSpan> find() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '@') {
        if (!take(email())) ++at_;
      } else if (is_hex(c) || c == ':') {
        if (!take(ipv6()) && !take(ipv4()) && !take(number())) skip_word();
      } else if (c == '+' || c == '(') {
        if (!take(number())) ++at_;
      } else if (is_letter(c)) {
        skip_word();
      } else {
        ++at_;
      }
    }
    return std::move(spans_);
  }

 private:
  using Found = std::optional<PiiSpan>;

  char at(size_t i) const noexcept { return i < text_.size() ? text_[i] : '\0'; }
  char before(size_t i) const noexcept { return i > 0 ? text_[i - 1] : '\0'; }

  bool take(const Found& found) {
    if (!found) return false;
    spans_.push_back(*found);
    at_ = found->end;
    return true;
  }

  // Skips the letters and digits here; a mail address is found from its @.
  void skip_word() {
    const size_t begin = at_;
    while (at_ < text_.size() && is_alnum(text_[at_])) ++at_;
    if (at_ == begin) ++at_;
  }

  Found email() const {
    const auto in_local = [](char c) {
      return is_alnum(c) || c == '.' || c == '_' || c == '%' || c == '+' || c == '-';
    };
    const size_t floor = spans_.empty() ? 0 : spans_.back().end;
    size_t begin = at_;
    while (begin > floor && at_ - begin < 64 && in_local(text_[begin - 1])) --begin;
    while (begin < at_ && !is_alnum(text_[begin])) ++begin;
    if (begin == at_ || text_[at_ - 1] == '.') return std::nullopt;
    size_t end = at_ + 1, last_dot = 0;
    for (size_t i = end; is_alnum(at(i)) || at(i) == '-' || at(i) == '.'; ++i) {
      if (text_[i] == '.') {
        if (!is_alnum(at(i + 1)) || !is_alnum(text_[i - 1])) break;
        last_dot = i;
      }
      end = i + 1;
    }
    if (last_dot == 0) return std::nullopt;
    while (text_[end - 1] == '-') --end;
    if (end < last_dot + 3) return std::nullopt;
    for (size_t i = last_dot + 1; i < end; ++i) {
      if (!is_letter(text_[i])) return std::nullopt;
    }
    return PiiSpan{begin, end, "email", "<EMAIL>"};
  }

  Found ipv6() const {
    if (is_alnum(before(at_)) || before(at_) == ':' || before(at_) == '.' || before(at_) == '_') {
      return std::nullopt;
    }
    size_t end = at_;
    int colons = 0;
    while (is_hex(at(end)) || at(end) == ':' || (at(end) == '.' && is_digit(at(end + 1)))) {
      colons += text_[end] == ':';
      if (++end - at_ > 45) return std::nullopt;
    }
    if (end > at_ && text_[end - 1] == ':' && !text_.substr(0, end).ends_with("::")) --end;
    if (colons < 2 || is_alnum(at(end)) || at(end) == '_') return std::nullopt;
    const std::string address(text_.substr(at_, end - at_));
    in6_addr parsed = {};
    if (::inet_pton(AF_INET6, address.c_str(), &parsed) != 1) return std::nullopt;
    if (std::ranges::none_of(address, is_digit)) return std::nullopt;
    static constexpr in6_addr kLoopback = IN6ADDR_LOOPBACK_INIT, kAny = IN6ADDR_ANY_INIT;
    const auto same = [&](const in6_addr& other) {
      return std::equal(std::begin(parsed.s6_addr), std::end(parsed.s6_addr),
                        std::begin(other.s6_addr));
    };
    if (same(kLoopback) || same(kAny)) return std::nullopt;
    return PiiSpan{at_, end, "ipv6", "<IP>"};
  }

  // A version number reads like an address, but says so.
  bool names_version(size_t begin) const {
    while (begin > 0 && text_[begin - 1] == ' ') --begin;
    std::string word;
    for (size_t i = begin; i > 0 && is_letter(text_[i - 1]) && word.size() < 8; --i) {
      word.insert(word.begin(), static_cast<char>(text_[i - 1] | 0x20));
    }
    return word == "version" || word == "release" || word == "ver";
  }

  Found ipv4() const {
    if (!is_digit(at(at_)) || is_alnum(before(at_)) || before(at_) == '.' || before(at_) == '-' ||
        before(at_) == '_') {
      return std::nullopt;
    }
    size_t end = at_;
    int octets[4];
    for (int part = 0; part < 4; ++part) {
      const size_t begin = end;
      int value = 0;
      while (is_digit(at(end)) && end - begin < 4) value = value * 10 + (text_[end++] - '0');
      if (end == begin || end - begin > 3 || value > 255) return std::nullopt;
      if (end - begin > 1 && text_[begin] == '0') return std::nullopt;
      octets[part] = value;
      if (part < 3 && at(end++) != '.') return std::nullopt;
    }
    const char next = at(end);
    if (is_alnum(next) || next == '_' || ((next == '.' || next == '-') && is_alnum(at(end + 1)))) {
      return std::nullopt;
    }
    const bool nobody = octets[0] == 127 || octets[0] == 255 ||
                        (octets[0] | octets[1] | octets[2] | octets[3]) == 0;
    if (nobody || names_version(at_)) return std::nullopt;
    return PiiSpan{at_, end, "ipv4", "<IP>"};
  }

  // A number and how it is written: groups of digits, what stands before each of them.
  struct Number {
    size_t begin = 0, end = 0;
    bool plus = false;
    std::string digits;
    struct Group {
      char before;  // ' ', '-', '.', or 0 where none
      bool bracketed;
      size_t length;
    };
    std::vector<Group> groups;
  };

  std::optional<Number> read_number() const {
    if (is_alnum(before(at_)) || before(at_) == '_' || before(at_) == '$') return std::nullopt;
    if ((before(at_) == '-' || before(at_) == '.' || before(at_) == ',' || before(at_) == ' ') &&
        at_ >= 2 && is_digit(text_[at_ - 2])) {
      return std::nullopt;  // the middle of a longer number
    }
    if (before(at_) == '-' && at_ >= 2 && is_alnum(text_[at_ - 2])) return std::nullopt;
    Number out;
    out.begin = at_;
    size_t i = at_;
    char separator = 0;
    while (i - at_ < 64) {
      const bool bracketed = at(i) == '(';
      size_t j = i + (bracketed ? 1 : 0);
      if (at(j) == '+') {
        if (!out.groups.empty()) break;
        out.plus = true;
        ++j;
      }
      const size_t digits = j;
      while (is_digit(at(j))) ++j;
      if (j == digits) break;
      if (bracketed && at(j) != ')') break;
      out.digits += text_.substr(digits, j - digits);
      out.groups.push_back({separator, bracketed, j - digits});
      i = j + (bracketed ? 1 : 0);
      out.end = i;
      separator = 0;
      const char next = at(i), second = at(i + 1);
      if (next == ' ' || next == '-' || next == '.') {
        if (!is_digit(second) && !(second == '(' && next != '.')) break;
        separator = next;
        ++i;
      } else if (next != '(' && !is_digit(next)) {
        break;
      }
    }
    if (out.groups.empty()) return std::nullopt;
    const char next = at(out.end), second = at(out.end + 1);
    const bool joined =
        (next == '-' || next == '.' || next == ',' || next == ':') && is_alnum(second);
    const bool check_x = next == 'x' || next == 'X';
    if ((is_alnum(next) && !check_x) || next == '_' || next == '%' || joined) return std::nullopt;
    return out;
  }

  static bool luhn(std::string_view digits) noexcept {
    int sum = 0;
    for (size_t i = 0; i < digits.size(); ++i) {
      int value = digits[digits.size() - 1 - i] - '0';
      if (i % 2 == 1 && (value *= 2) > 9) value -= 9;
      sum += value;
    }
    return sum % 10 == 0;
  }

  static bool is_card(const Number& n) {
    const std::string& d = n.digits;
    const size_t length = d.size();
    if (n.plus || length < 13 || length > 19 || length == 17 || length == 18) return false;
    for (const auto& group : n.groups) {
      if (group.bracketed || group.before == '.' || group.before != n.groups.back().before) {
        if (&group != &n.groups.front() || group.bracketed) return false;
      }
      if (n.groups.size() > 1 && (group.length < 3 || group.length > 7)) return false;
    }
    const int two = std::stoi(d.substr(0, 2)), three = std::stoi(d.substr(0, 3)),
              four = std::stoi(d.substr(0, 4));
    const bool visa = d[0] == '4' && (length == 13 || length == 16 || length == 19);
    const bool mastercard =
        length == 16 && ((two >= 51 && two <= 55) || (four >= 2221 && four <= 2720));
    const bool amex = length == 15 && (two == 34 || two == 37);
    const bool diners =
        length == 14 && (two == 36 || two == 38 || two == 39 || (three >= 300 && three <= 305));
    const bool discover = (length == 16 || length == 19) &&
                          (four == 6011 || two == 65 || (three >= 644 && three <= 649));
    const bool jcb = (length == 16 || length == 19) && four >= 3528 && four <= 3589;
    const bool unionpay = (length == 16 || length == 19) && two == 62;
    return (visa || mastercard || amex || diners || discover || jcb || unionpay) && luhn(d);
  }

  // GB 11643: six digits of a place, a birth date, three of order, a check digit modulo 11.
  bool is_identity(const Number& n, size_t& end) const {
    if (n.plus || n.groups.size() != 1 || n.groups[0].bracketed) return false;
    std::string id = n.digits;
    end = n.end;
    if (id.size() == 17 && (at(n.end) == 'X' || at(n.end) == 'x')) {
      if (is_alnum(at(n.end + 1))) return false;
      id += 'X';
      ++end;
    }
    if (id.size() != 18) return false;
    const int year = std::stoi(id.substr(6, 4)), month = std::stoi(id.substr(10, 2)),
              day = std::stoi(id.substr(12, 2));
    if (year < 1850 || year > 2100 || month < 1 || month > 12 || day < 1) return false;
    constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (day > kDays[month - 1] + (month == 2 && leap ? 1 : 0)) return false;
    constexpr int kWeights[] = {7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2};
    int sum = 0;
    for (size_t i = 0; i < 17; ++i) sum += (id[i] - '0') * kWeights[i];
    return id[17] == "10X98765432"[sum % 11];
  }

  static bool is_chinese_mobile(const Number& n) {
    std::string_view d = n.digits;
    size_t group = 0;
    for (const std::string_view code : {"0086", "86"}) {
      const bool own_group = n.groups.size() > 1 && n.groups[0].length == code.size();
      if (!d.starts_with(code)) continue;
      if (own_group) {
        group = 1;
      } else if (!n.plus && !(code == "0086" && n.groups.size() == 1)) {
        continue;  // 86 before a bare number is not told from a longer one
      }
      d.remove_prefix(code.size());
      break;
    }
    if (n.plus && d.size() == n.digits.size()) return false;
    if (d.size() != 11 || d[0] != '1' || d[1] < '3') return false;
    std::vector<size_t> lengths;
    for (size_t i = group; i < n.groups.size(); ++i) {
      if (n.groups[i].before == '.' || (n.groups[i].bracketed && i > 0)) return false;
      lengths.push_back(n.groups[i].length);
    }
    if (lengths.size() == 1) return true;
    return lengths == std::vector<size_t>{3, 4, 4};
  }

  static bool is_us_phone(const Number& n) {
    std::string_view d = n.digits;
    size_t group = 0;
    if (d.size() == 11 && d[0] == '1') {
      d.remove_prefix(1);
      if (n.groups.size() == 1) return n.plus && d[0] >= '2' && d[3] >= '2';
      if (n.groups[0].length != 1) return n.plus && n.groups[0].length == 4;
      group = 1;
    } else if (n.plus) {
      return false;
    }
    if (d.size() != 10 || d[0] < '2' || d[3] < '2') return false;
    if (n.groups.size() - group != 3) return false;
    return n.groups[group].length == 3 && n.groups[group + 1].length == 3 &&
           n.groups[group + 2].length == 4 && !n.groups[group + 1].bracketed &&
           !n.groups[group + 2].bracketed;
  }

  static bool is_international(const Number& n) {
    const bool zeros = n.digits.starts_with("00") && !n.digits.starts_with("000");
    if (!n.plus && !zeros) return false;
    const size_t length = n.digits.size() - (zeros ? 2 : 0);
    const char first = n.digits[zeros && !n.plus ? 2 : 0];
    for (const auto& group : n.groups) {
      if (group.before == '.') return false;
    }
    if (!n.plus && n.groups.size() < 2) return false;
    return length >= 8 && length <= 16 && first != '0';
  }

  Found number() const {
    const auto n = read_number();
    if (!n) return std::nullopt;
    size_t end = n->end;
    if (is_identity(*n, end)) return PiiSpan{n->begin, end, "id_cn", "<ID>"};
    if (is_alnum(at(n->end))) return std::nullopt;
    if (is_card(*n)) return PiiSpan{n->begin, n->end, "card", "<CARD>"};
    if (is_chinese_mobile(*n)) return PiiSpan{n->begin, n->end, "phone_cn_mobile", "<PHONE>"};
    if (is_us_phone(*n)) return PiiSpan{n->begin, n->end, "phone_us", "<PHONE>"};
    if (is_international(*n)) return PiiSpan{n->begin, n->end, "phone_intl", "<PHONE>"};
    return std::nullopt;
  }

  std::string_view text_;
  size_t at_ = 0;
  std::vector<PiiSpan> spans_;
};

}  // namespace

std::vector<PiiSpan> find_pii(std::string_view text) { return Finder(text).find(); }

}  // namespace quern
