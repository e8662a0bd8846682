// Round trips of random texts until the time is over: decode(encode(x)) is NFC(x) for valid text,
// kept bytes come back, and threads do not matter. Ends with 1 at the first difference.
//
//   bench_tokenizer_fuzz VOCABULARY SECONDS SEED
#include <fmt/format.h>

#include <chrono>

#include "core/error.h"
#include "core/rng.h"
#include "core/utf8.h"
#include "text/load.h"
#include "text/parallel_encode.h"
#include "text/unicode.h"

namespace quern {
namespace {

std::string random_text(Rng& rng) {
  std::string out;
  const uint64_t style = rng.below(6);
  for (uint64_t n = 1 + rng.below(rng.below(20) == 0 ? 3000 : 120); n > 0; --n) {
    switch (rng.below(3) == 0 ? rng.below(6) : style) {
      case 0:
        out += static_cast<char>(rng.below(128));
        break;
      case 1:
        out.append(1 + rng.below(9), static_cast<char>('a' + rng.below(26)));
        out += ' ';
        break;
      case 2:
        utf8::append(out, static_cast<char32_t>(0x4E00 + rng.below(0x5200)));
        break;
      case 3:
        utf8::append(out, static_cast<char32_t>(0xA0 + rng.below(0x3000)));
        break;
      case 4: {
        const auto point = static_cast<char32_t>(rng.below(0x110000));
        if (point < 0xD800 || point >= 0xE000) utf8::append(out, point);
        break;
      }
      default:
        out.append(1 + rng.below(40), " \n\r\t'.0="[rng.below(8)]);
    }
  }
  return out;
}

int run(const std::string& vocabulary, int seconds, uint64_t seed) {
  const auto tokenizer = load_tokenizer(vocabulary);
  ThreadPool threads(2);
  Rng rng(seed);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  uint64_t rounds = 0, bytes = 0;
  for (; std::chrono::steady_clock::now() < end; ++rounds) {
    const std::string text = random_text(rng);
    if (text.empty()) continue;  // every choice fell on a surrogate
    bytes += text.size();
    std::string storage, raw = text;
    const auto ids = tokenizer->encode(text);
    for (uint64_t n = rng.below(4); n > 0; --n) {
      raw[rng.below(raw.size())] = static_cast<char>(rng.below(256));
    }
    const bool same = tokenizer->decode(ids) == unicode::to_nfc(text, storage) &&
                      encode_parallel(*tokenizer, text, threads, 1 + rng.below(300)) == ids &&
                      tokenizer->decode_bytes(tokenizer->encode_bytes(raw, BadText::Keep)) == raw;
    if (same) continue;
    fmt::print("round {} of seed {} differs: {}\n", rounds, seed, printable(raw, 4000));
    return 1;
  }
  fmt::print("{} texts of {} bytes in {} s came back\n", rounds, bytes, seconds);
  return 0;
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: bench_tokenizer_fuzz VOCABULARY SECONDS SEED\n", stderr);
    return argc == 1 ? 0 : 2;
  }
  try {
    return quern::run(argv[1], std::stoi(argv[2]), std::stoull(argv[3]));
  } catch (const quern::Error& error) {
    fmt::print(stderr, "bench_tokenizer_fuzz: {}\n", error.line());
    return error.exit_code();
  }
}
