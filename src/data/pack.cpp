#include "data/pack.h"

#include <fmt/format.h>

#include "core/error.h"
#include "text/chatml.h"

namespace quern {
namespace {

constexpr size_t kBatchBytes = size_t{8} << 20;  // of text, tokenized together

struct Packed {
  std::vector<TokenId> ids;
  std::vector<uint8_t> mask;
  int64_t text_bytes = 0;
};

class Encoder {
 public:
  Encoder(const Tokenizer& tokenizer, const PackOptions& options)
      : tokenizer_(tokenizer), system_(options.system) {
    const auto end = tokenizer.special("<|endoftext|>");
    if (!end && !tokenizer.eos()) {
      throw_bad_input("the tokenizer has neither <|endoftext|> nor another end of text",
                      "documents are joined by it: name a tokenizer that has one");
    }
    end_of_text_ = end ? *end : *tokenizer.eos();
    if (!options.documents.messages_field.empty()) chat_.emplace(tokenizer);
  }

  Packed operator()(const Document& document) const {
    Packed out;
    if (chat_) {
      conversation(document.messages, out);
    } else {
      if (!document.text.empty()) out.ids = tokenizer_.encode_whole(document.text);
      out.text_bytes = static_cast<int64_t>(document.text.size());
    }
    if (out.ids.empty()) return out;
    if (out.ids.back() != end_of_text_) {
      out.ids.push_back(end_of_text_);
      if (chat_) out.mask.push_back(0);
    }
    return out;
  }

 private:
  void conversation(const std::vector<Message>& messages, Packed& out) const {
    std::vector<Message> turns = messages;
    if (turns[0].role != ChatRole::System && !system_.empty()) {
      turns.insert(turns.begin(), {ChatRole::System, system_});
    }
    for (const Message& turn : turns) {
      const size_t begin = out.ids.size();
      chat_->append_turn(turn, out.ids);
      out.mask.resize(out.ids.size(), 0);
      if (turn.role == ChatRole::Assistant && turn.learn) {
        std::vector<TokenId> header;
        chat_->append_turn({turn.role, std::string()},
                           header);  // without its <|im_end|>: what is not learnt
        std::fill(out.mask.begin() + static_cast<ptrdiff_t>(begin + header.size() - 1),
                  out.mask.end(), uint8_t{1});
      }
      out.ids.insert(out.ids.end(), chat_->newline().begin(), chat_->newline().end());
      out.mask.resize(out.ids.size(), 0);
      out.text_bytes += static_cast<int64_t>(turn.text().size());
    }
  }

  const Tokenizer& tokenizer_;
  std::string system_;
  TokenId end_of_text_ = 0;
  std::optional<ChatMl> chat_;
};

size_t text_size(const Document& document) {
  size_t bytes = document.text.size();
  for (const Message& message : document.messages) bytes += message.text().size();
  return bytes;
}

}  // namespace

PackReport pack(const std::vector<fs::path>& files, const Tokenizer& tokenizer,
                const fs::path& folder, const PackOptions& options, ThreadPool& pool,
                const PackProgress& progress) {
  const Encoder encode(tokenizer, options);
  PackReport report;
  DatasetManifest start;
  start.name = options.name;
  start.tokenizer_hash = tokenizer.hash();
  start.vocab = tokenizer.size();
  DatasetWriter writer(folder, std::move(start), options.shard_tokens);

  std::vector<Document> documents;
  size_t waiting = 0;
  const auto flush = [&] {
    std::vector<Packed> packed(documents.size());
    pool.parallel_for(
        static_cast<int64_t>(documents.size()), 1, [&](int64_t begin, int64_t end, int) {
          for (int64_t i = begin; i < end; ++i) {
            packed[static_cast<size_t>(i)] = encode(documents[static_cast<size_t>(i)]);
          }
        });
    for (const Packed& one : packed) writer.add(one.ids, one.mask, one.text_bytes);
    documents.clear();
    waiting = 0;
  };
  uint64_t earlier_files = 0;
  for (const fs::path& file : files) {
    DocumentReader reader(file, options.documents);
    Document document;
    while (reader.next(document)) {
      waiting += text_size(document);
      documents.push_back(std::move(document));
      if (waiting < kBatchBytes) continue;
      flush();
      progress(earlier_files + reader.consumed_bytes());
    }
    earlier_files += file == "-" ? reader.consumed_bytes() : fs::file_size(file);
    if (report.bad_records == 0) report.first_bad = reader.first_bad();
    report.bad_records += reader.bad_records();
  }
  flush();
  progress(earlier_files);
  report.manifest = writer.finish();
  return report;
}

}  // namespace quern
