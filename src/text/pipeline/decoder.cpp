#include "text/pipeline/decoder.h"

#include <algorithm>

#include "core/utf8.h"
#include "formats/byte_level.h"
#include "text/pipeline/normalizer.h"
#include "text/pipeline/piece_model.h"

namespace quern {
namespace {

using Kind = DecoderStep::Kind;

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty()) return;
  for (size_t at = 0; (at = text.find(from, at)) != text.npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
}

// Hugging Face's clean-up of spaces before punctuation and parts of English words.
void clean_up(std::string& text) {
  constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) replace_all(text, from, to);
}

std::string readable(std::string_view bytes, bool replace) {
  std::string out;
  while (!bytes.empty()) {
    const size_t valid = std::min(utf8::first_invalid(bytes), bytes.size());
    out.append(bytes.substr(0, valid));
    bytes.remove_prefix(valid);
    if (bytes.empty()) break;
    if (replace) utf8::append(out, 0xFFFD);
    bytes.remove_prefix(utf8::decode(bytes).length);
  }
  return out;
}

// Tokens <0xXX> side by side are the bytes of a text; if they make none, each is U+FFFD.
void join_bytes(std::vector<std::string>& tokens, bool replace) {
  std::vector<std::string> out;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (utf8::is_valid(bytes)) {
      out.push_back(bytes);
    } else if (replace) {
      for (size_t i = 0; i < bytes.size(); ++i) out.emplace_back("\uFFFD");
    }
    bytes.clear();
  };
  for (std::string& token : tokens) {
    if (const int byte = byte_of_name(token); byte >= 0) {
      bytes += static_cast<char>(byte);
      continue;
    }
    flush();
    out.push_back(std::move(token));
  }
  flush();
  tokens = std::move(out);
}

void strip(std::string& token, const DecoderStep& step) {
  const std::string_view mark = step.content;
  size_t begin = 0, end = token.size();
  for (int64_t i = 0; i < step.start && std::string_view(token).substr(begin).starts_with(mark);
       ++i) {
    begin += mark.size();
  }
  for (int64_t i = 0;
       i < step.stop && std::string_view(token).substr(begin, end - begin).ends_with(mark); ++i) {
    end -= mark.size();
  }
  token = token.substr(begin, end - begin);
}

}  // namespace

std::string byte_level_bytes(std::string_view token) {
  auto bytes = byte_level_to_bytes(token);
  return bytes ? std::move(*bytes) : std::string(token);
}

Decoder::Decoder(std::vector<DecoderStep> steps, const std::string& source) {
  for (DecoderStep& what : steps) {
    Step step;
    step.what = std::move(what);
    if (step.what.pattern.is_regex) step.regex.emplace(step.what.pattern.text, source);
    steps_.push_back(std::move(step));
  }
}

bool Decoder::has(Kind kind) const noexcept {
  return std::any_of(steps_.begin(), steps_.end(),
                     [&](const Step& step) { return step.what.kind == kind; });
}

bool Decoder::is_byte_level() const noexcept {
  return steps_.size() == 1 && steps_[0].what.kind == Kind::ByteLevel;
}

bool Decoder::drops_first_space() const noexcept {
  if (steps_.empty() || has(Kind::WordPiece)) return true;
  for (const Step& step : steps_) {
    if (step.what.kind == Kind::Metaspace && step.what.prepend != PrependScheme::Never) return true;
    if (step.what.kind == Kind::Strip && step.what.content == " " && step.what.start > 0)
      return true;
  }
  return false;
}

bool Decoder::concatenates() const noexcept {
  bool fused = false;
  for (const Step& step : steps_) {
    switch (step.what.kind) {
      case Kind::Bpe:
      case Kind::Ctc:
        return false;
      case Kind::Fuse:
        fused = true;
        break;
      case Kind::Replace:
        if (fused || step.regex) return false;
        break;
      case Kind::Strip:
        if (fused ? step.what.stop > 0 || step.what.start > 1 || step.what.content != " " : true) {
          return false;
        }
        break;
      default:
        break;
    }
  }
  return true;
}

void Decoder::apply(const Step& step, std::vector<std::string>& tokens, bool replace) {
  const DecoderStep& what = step.what;
  switch (what.kind) {
    case Kind::Bpe:
      for (size_t i = 0; i < tokens.size(); ++i) {
        replace_all(tokens[i], what.suffix, i + 1 == tokens.size() ? "" : " ");
      }
      return;
    case Kind::ByteLevel: {
      std::string bytes;
      for (const std::string& token : tokens) bytes += byte_level_bytes(token);
      tokens.assign(1, readable(bytes, replace));
      return;
    }
    case Kind::WordPiece:
      for (size_t i = 0; i < tokens.size(); ++i) {
        if (i > 0 && tokens[i].starts_with(what.suffix) && !what.suffix.empty()) {
          tokens[i].erase(0, what.suffix.size());
        } else if (i > 0 && !what.suffix.empty()) {
          tokens[i].insert(0, " ");
        }
        if (what.cleanup) clean_up(tokens[i]);
      }
      return;
    case Kind::Metaspace:
      for (size_t i = 0; i < tokens.size(); ++i) {
        const bool first = i == 0 && what.prepend != PrependScheme::Never;
        replace_all(tokens[i], what.content, first ? "" : " ");
      }
      return;
    case Kind::Ctc: {
      std::vector<std::string> out;
      for (size_t i = 0; i < tokens.size(); ++i) {
        if (i > 0 && tokens[i] == tokens[i - 1]) continue;
        std::string text = tokens[i];
        replace_all(text, what.suffix, "");
        if (what.cleanup) {
          clean_up(text);
          replace_all(text, what.delimiter, " ");
        }
        if (!text.empty()) out.push_back(std::move(text));
      }
      tokens = std::move(out);
      return;
    }
    case Kind::Replace:
      for (std::string& token : tokens) {
        std::string out;
        replace_matches(what.pattern, step.regex ? &*step.regex : nullptr, what.content, token,
                        out);
        token = std::move(out);
      }
      return;
    case Kind::Fuse: {
      std::string all;
      for (const std::string& token : tokens) all += token;
      tokens.assign(1, std::move(all));
      return;
    }
    case Kind::Strip:
      for (std::string& token : tokens) strip(token, what);
      return;
    case Kind::ByteFallback:
      return join_bytes(tokens, replace);
  }
}

std::string Decoder::run(std::vector<std::string> tokens, bool replace) const {
  for (const Step& step : steps_) apply(step, tokens, replace);
  std::string out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0 && steps_.empty()) out += ' ';
    out += tokens[i];
  }
  return out;
}

}  // namespace quern
