// Encoding speed on a file of documents: what bench/tokenizer_peers.py races against other
// tokenizers. The documents of the first half are encoded by a fresh tokenizer (cold), then those
// of the second, which it has not seen (warm), then these again.
//
//   bench_tokenizer VOCABULARY FILE SEPARATOR           one line of JSON
//   bench_tokenizer VOCABULARY FILE ''                  the whole file as one text, best of three
//   bench_tokenizer --load VOCABULARY                   ms of wall clock until it can encode
//   bench_tokenizer --train FILE SEPARATOR VOCAB_SIZE   learns a vocabulary
#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "text/bpe_trainer.h"
#include "text/load.h"

namespace quern {
namespace {

double thread_seconds() {
  timespec now;
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

template <class Body>
double seconds(Body&& body) {
  const double start = thread_seconds();
  body();
  return thread_seconds() - start;
}

std::vector<std::string_view> documents(std::string_view text, std::string_view separator) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const size_t end = std::min(text.find(separator), text.size());
    out.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + separator.size(), text.size()));
  }
  return out;
}

int encode_whole(const std::string& vocabulary, const std::string& text) {
  const auto tokenizer = load_tokenizer(vocabulary);
  std::vector<TokenId> ids;
  double best = 1e9;
  for (int round = 0; round < 3; ++round) {
    ids.clear();
    best = std::min(best, seconds([&] { tokenizer->encode(text, ids); }));
  }
  fmt::print("{{\"piece_ms\": {:.2f}, \"tokens\": {}}}\n", 1e3 * best, ids.size());
  return 0;
}

// The first load is what counts: memory that was used before comes cheaper.
int load(const std::string& vocabulary) {
  const auto start = std::chrono::steady_clock::now();
  const auto tokenizer = load_tokenizer(vocabulary);
  const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
  fmt::print("{{\"load_ms\": {:.2f}, \"tokens\": {}}}\n", time.count(), tokenizer->size());
  return 0;
}

int train(const std::string& file, const std::string& separator, int64_t vocab) {
  const std::string text = read_file(file);
  TrainedBpe trained;
  const double time = seconds([&] {
    BpeTrainer trainer;
    for (const std::string_view document : documents(text, separator)) trainer.add(document);
    trained = trainer.train({.vocab = vocab});
  });
  fmt::print("{{\"seconds\": {:.3f}, \"tokens\": {}}}\n", time, trained.tokens.size());
  return 0;
}

int run(const std::string& vocabulary, const std::string& file, const std::string& separator) {
  const std::string text = read_file(file);
  if (separator.empty()) return encode_whole(vocabulary, text);
  const auto all = documents(text, separator);
  size_t half = 0, half_bytes = 0;
  while (half < all.size() && 2 * half_bytes < text.size()) half_bytes += all[half++].size();
  size_t rest_bytes = 0;
  for (size_t i = half; i < all.size(); ++i) rest_bytes += all[i].size();

  std::shared_ptr<const Tokenizer> tokenizer;
  const auto start = std::chrono::steady_clock::now();
  tokenizer = load_tokenizer(vocabulary);
  const double load =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::vector<std::vector<TokenId>> ids(all.size());
  const auto encode = [&](size_t from, size_t to) {
    return seconds([&] {
      for (size_t i = from; i < to; ++i) {
        ids[i].clear();
        tokenizer->encode(all[i], ids[i]);
      }
    });
  };
  const double cold = encode(0, half), warm = encode(half, all.size()),
               again = encode(half, all.size());
  std::string bytes;
  std::string decoded;
  const double decode = seconds([&] {
    for (const auto& list : ids) decoded = tokenizer->decode(list);
  });
  std::vector<TokenId> flat;
  for (const auto& list : ids) flat.insert(flat.end(), list.begin(), list.end());
  const std::string_view raw(reinterpret_cast<const char*>(flat.data()), 4 * flat.size());
  fmt::print(
      "{{\"load_ms\": {:.1f}, \"cold\": {:.1f}, \"warm\": {:.1f}, \"again\": {:.1f}, "
      "\"decode\": {:.1f}, \"tokens\": {}, \"sha256\": \"{}\"}}\n",
      1e3 * load, 1e-6 * double(half_bytes) / cold, 1e-6 * double(rest_bytes) / warm,
      1e-6 * double(rest_bytes) / again, 1e-6 * double(half_bytes + rest_bytes) / decode,
      flat.size(), sha256(raw));
  return 0;
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  if (argc < 3 || argc > 5) {
    std::fputs("usage: bench_tokenizer VOCABULARY FILE SEPARATOR (see tokenizer_peers.py)\n",
               stderr);
    return argc == 1 ? 0 : 2;
  }
  try {
    if (argc == 5) return quern::train(argv[2], argv[3], std::stoll(argv[4]));
    if (argc == 3) return quern::load(argv[2]);
    return quern::run(argv[1], argv[2], argv[3]);
  } catch (const quern::Error& error) {
    fmt::print(stderr, "bench_tokenizer: {}\n", error.line());
    return error.exit_code();
  }
}
