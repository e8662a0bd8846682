// What GBNF and regular expressions share: a reader of escapes, classes and counts. Inside grammar/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "grammar/grammar.h"

namespace quern {

constexpr uint32_t kLastPoint = 0x10FFFF;

class NotationReader {
 public:
  // `what` names the text in messages. Throws BadInput for a text that is too long or no UTF-8.
  NotationReader(std::string_view text, const char* what);
  virtual ~NotationReader() = default;

 protected:
  [[noreturn]] void fail(const std::string& problem) const;
  bool done() const { return at_ >= text_.size(); }
  char peek() const { return done() ? '\0' : text_[at_]; }
  bool take(std::string_view wanted);
  uint32_t point();
  uint32_t hex(int digits);
  int64_t count();  // -1 where no digit stands

  // *, +, ?, {m}, {m,} or {m,n}; false where none stands. most -1: any number.
  bool repetition(int64_t& least, int64_t& most);
  // What an escape stands for; the backslash is taken.
  CodePoints escape(bool widest = false);
  // Of what the notations don't share. Where `widest`, all that some dialect means by it, else what
  // all of them do: what a negated class leaves out is left out by everybody.
  virtual CodePoints own_escape(uint32_t c, bool widest) = 0;
  static CodePoints single(uint32_t point) { return {{point, point}}; }
  // c itself, where it is one of the characters that a backslash may stand before.
  CodePoints plain_escape(uint32_t c, std::string_view characters) const;
  // Behind [.
  CodePoints character_class();

  std::string_view text_;
  const char* what_;
  size_t at_ = 0;
  int depth_ = 0;

 private:
  CodePoints class_item(bool widest);
};

}  // namespace quern
