#include "formats/sentencepiece_model.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>

#include "core/error.h"
#include "core/file.h"
#include "core/utf8.h"

namespace quern {
namespace {

constexpr size_t kMaxPieces = size_t{1} << 22;

// One field of a message at a time. The numbers are those of SentencePiece's published format.
class Message {
 public:
  Message(std::string_view bytes, const std::string& source, size_t offset)
      : bytes_(bytes), source_(source), offset_(offset) {}

  struct Field {
    uint64_t number = 0;
    uint64_t varint = 0;     // of numbers; the bits of a float
    std::string_view bytes;  // of texts and messages
    size_t offset = 0;       // of `bytes` in the file
  };

  bool next(Field& field) {
    if (at_ == bytes_.size()) return false;
    const uint64_t key = varint();
    field = {};
    field.number = key >> 3;
    switch (key & 7) {
      case 0:
        field.varint = varint();
        break;
      case 1:
        field.varint = fixed(8);
        break;
      case 2: {
        const uint64_t size = varint();
        if (size > bytes_.size() - at_) fail();
        field.offset = offset_ + at_;
        field.bytes = bytes_.substr(at_, size);
        at_ += size;
        break;
      }
      case 5:
        field.varint = fixed(4);
        break;
      default:
        fail();
    }
    return true;
  }

 private:
  [[noreturn]] void fail() const {
    throw_bad_input(fmt::format("{}: is not a SentencePiece model: byte {} makes no sense", source_,
                                offset_ + at_));
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (at_ == bytes_.size()) fail();
      const auto byte = static_cast<unsigned char>(bytes_[at_++]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail();
  }
  uint64_t fixed(size_t size) {
    if (size > bytes_.size() - at_) fail();
    uint64_t value = 0;
    std::memcpy(&value, bytes_.data() + at_, size);
    at_ += size;
    return value;
  }

  std::string_view bytes_;
  const std::string& source_;
  size_t offset_, at_ = 0;
};

SentencePieceModel::Piece read_piece(Message message, const std::string& source, size_t id) {
  SentencePieceModel::Piece piece;
  for (Message::Field field; message.next(field);) {
    if (field.number == 1) piece.text = field.bytes;
    if (field.number == 2) piece.score = std::bit_cast<float>(static_cast<uint32_t>(field.varint));
    if (field.number == 3) {
      if (field.varint < 1 || field.varint > 6) {
        throw_bad_input(fmt::format("{}: the piece {} has the type {}, expected 1 to 6", source, id,
                                    field.varint));
      }
      piece.type = static_cast<SentencePieceModel::Type>(field.varint);
    }
  }
  if (!utf8::is_valid(piece.text)) {
    throw_bad_input(fmt::format("{}: the piece {} is not valid UTF-8", source, id));
  }
  return piece;
}

}  // namespace

SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& source) {
  if (is_lfs_pointer(bytes)) {
    throw_bad_input(source + ": is a Git LFS pointer, not the tokenizer itself",
                    "run 'git lfs pull' in the model's repository");
  }
  SentencePieceModel model;
  Message all(bytes, source, 0);
  const auto id_of = [](uint64_t value) {
    return static_cast<int64_t>(static_cast<int32_t>(value));
  };
  for (Message::Field field; all.next(field);) {
    if (field.number == 1) {
      if (model.pieces.size() == kMaxPieces) {
        throw_bad_input(fmt::format("{}: has more than {} pieces", source, kMaxPieces));
      }
      model.pieces.push_back(
          read_piece(Message(field.bytes, source, field.offset), source, model.pieces.size()));
    } else if (field.number == 2) {  // how it was trained
      Message trainer(field.bytes, source, field.offset);
      for (Message::Field own; trainer.next(own);) {
        switch (own.number) {
          case 3:
            if (own.varint < 1 || own.varint > 4) {
              throw_bad_input(
                  fmt::format("{}: has the model type {}, expected 1 to 4", source, own.varint));
            }
            model.algorithm = static_cast<SentencePieceModel::Algorithm>(own.varint);
            break;
          case 24:
            model.space_as_suffix = own.varint != 0;
            break;
          case 35:
            model.byte_fallback = own.varint != 0;
            break;
          case 40:
            model.unknown = id_of(own.varint);
            break;
          case 41:
            model.bos = id_of(own.varint);
            break;
          case 42:
            model.eos = id_of(own.varint);
            break;
          case 43:
            model.pad = id_of(own.varint);
            break;
          default:
            break;
        }
      }
    } else if (field.number == 3) {  // how text is normalized
      Message normalizer(field.bytes, source, field.offset);
      for (Message::Field own; normalizer.next(own);) {
        if (own.number == 2) model.charsmap = own.bytes;
        if (own.number == 3) model.add_prefix = own.varint != 0;
        if (own.number == 4) model.remove_extra_spaces = own.varint != 0;
        if (own.number == 5) model.escape_spaces = own.varint != 0;
      }
    }
  }
  if (model.pieces.empty()) {
    throw_bad_input(source + ": is not a SentencePiece model: it holds no pieces");
  }
  return model;
}

}  // namespace quern
