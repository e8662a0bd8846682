#include "text/bpe_file.h"

#define XXH_INLINE_ALL
#include <sys/mman.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <future>

namespace quern {
namespace {

// Raised with every change to the tables, or to how they are searched.
constexpr uint32_t kVersion = 1;
constexpr uint32_t kByteOrder = 0x01020304;
constexpr size_t kAlignment = 64;
constexpr size_t kMaxTokenBytes = 0xFFFF;

struct Section {
  uint64_t offset, count;
};
constexpr size_t kSections = 12;

struct Header {
  char magic[8];
  uint32_t version, byte_order;
  SourceId source;
  uint64_t file_bytes;
  uint64_t checksum;  // of all that follows the header
  Section sections[kSections];
};
constexpr std::string_view kMagic = "QuernBPE";
static_assert(sizeof(Header) % 8 == 0);

constexpr size_t aligned(size_t offset) { return (offset + kAlignment - 1) & ~(kAlignment - 1); }

// UTF-8 bytes of the code points below 2^16.
constexpr size_t encoded_bytes(size_t point) { return point < 0x80 ? 1 : point < 0x800 ? 2 : 3; }

}  // namespace

SourceId source_id(std::string_view text) noexcept {
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return {text.size(), {hash.low64, hash.high64}};
}

// Calls take(table) for every table, in the order of the sections.
class BpeTables {
 public:
  template <class B, class Take>
  static void each(B& bpe, Take&& take) {
    take(bpe.arena_);
    take(bpe.offsets_);
    take(bpe.by_bytes_);
    take(bpe.filter_);
    take(bpe.pairs_.slots_);
    take(bpe.pairs_.filter_);
    take(bpe.characters_);
    take(bpe.crossing_list_);
    take(bpe.crossing_begins_);
    take(bpe.crossings_);
    take(bpe.ascii_pairs_);
  }

  static bool fits(const Bpe& bpe) {
    return bpe.whole_pieces_ && bpe.joined_.empty() && bpe.longest_ <= kMaxTokenBytes;
  }
  static std::span<const TokenId> byte_ids(const Bpe& bpe) { return bpe.byte_ids_; }

  static Bpe make() { return Bpe(); }

  // Sets what is derived from the tables; false where they are not sound, or `checksum()` says so.
  // Millions of numbers of no pattern: their checks have no branches, and two threads share them.
  template <class Checksum>
  static bool check(Bpe& bpe, std::span<const TokenId> byte_ids, Checksum&& checksum) {
    if (!check_tokens(bpe, byte_ids)) return false;
    if (!check_pair_tables(bpe)) return false;
    const Sizes sizes(bpe);
    const std::span pairs(bpe.pairs_.slots_.data(), bpe.pairs_.slots_.size());
    const size_t own = pairs.size() / 4 * 3;  // so many that both take as long
    size_t used = 0, others_used = 0;
    auto others = std::async(std::launch::async | std::launch::deferred, [&] {
      return check_index(bpe) && check_characters(bpe, sizes) && check_crossings(bpe) &&
             check_pairs(pairs.subspan(own), sizes, others_used) && checksum();
    });
    const bool sound = check_pairs(pairs.first(own), sizes, used);
    if (!others.get() || !sound) return false;
    bpe.pairs_.count_ = used + others_used;
    return bpe.pairs_.count_ < pairs.size();  // a free slot, so that a search ends
  }

  static void keep(Bpe& bpe, MappedFile file) {
    bpe.file_ = std::make_shared<const MappedFile>(std::move(file));
  }

 private:
  // Bytes of each token; 0 for every number that is none, and for gaps.
  class Sizes {
   public:
    explicit Sizes(const Bpe& bpe) : sizes_(bpe.size() + 1, 0) {
      for (size_t id = 0; id < bpe.size(); ++id) {
        sizes_[id] = static_cast<uint16_t>(bpe.offsets_[id + 1] - bpe.offsets_[id]);
      }
    }
    uint32_t operator()(uint64_t id) const noexcept {
      return sizes_.data()[std::min<uint64_t>(id, sizes_.size() - 1)];
    }

   private:
    std::vector<uint16_t, HugePages<uint16_t>> sizes_;
  };

  static bool check_tokens(Bpe& bpe, std::span<const TokenId> byte_ids) {
    const Table<uint32_t>& offsets = bpe.offsets_;
    if (offsets.size() < 257 || offsets.size() > size_t{1} << PairRanks::kIdBits) return false;
    if (offsets[0] != 0 || offsets[offsets.size() - 1] != bpe.arena_.size()) return false;
    const size_t count = offsets.size() - 1;
    uint32_t longest = 0;
    bool rising = true;
    for (size_t id = 0; id < count; ++id) {
      rising &= offsets[id] <= offsets[id + 1];
      longest = std::max(longest, offsets[id + 1] - offsets[id]);
    }
    if (!rising || longest > kMaxTokenBytes) return false;
    bpe.longest_ = longest;
    bpe.whole_pieces_ = true;
    if (byte_ids.size() != 256) return false;
    for (size_t byte = 0; byte < 256; ++byte) {
      const TokenId id = byte_ids[byte];
      if (id < 0 || static_cast<size_t>(id) >= count) return false;
      const std::string_view token = bpe.bytes(id);
      if (token.size() != 1 || static_cast<unsigned char>(token[0]) != byte) return false;
      bpe.byte_ids_[byte] = id;
    }
    return true;
  }

  // An id in each slot, and a free slot, so that a search ends.
  static bool check_index(const Bpe& bpe) {
    const Table<uint64_t>& slots = bpe.by_bytes_;
    if (!std::has_single_bit(slots.size())) return false;
    if (bpe.filter_.size() != size_t{1} << (Bpe::kFilterBits - 6)) return false;
    uint32_t highest = 0;
    bool any_free = false, sound = true;
    for (const uint64_t word : slots) {
      highest = std::max(highest, static_cast<uint32_t>(word));
      any_free |= word == 0;
      sound &= word == 0 || static_cast<uint32_t>(word) != 0;
    }
    return sound && any_free && highest <= bpe.size();
  }

  static bool check_pair_tables(Bpe& bpe) {
    PairRanks& pairs = bpe.pairs_;
    const size_t size = pairs.slots_.size();
    if (size < 64 || size > size_t{1} << 32 || !std::has_single_bit(size)) return false;
    if (pairs.filter_.size() != (size << PairRanks::kFilterBits) / 64) return false;
    pairs.mask_ = size - 1;
    pairs.shift_ = 64 - std::countr_zero(size);
    pairs.filter_shift_ = pairs.shift_ - PairRanks::kFilterBits;
    return true;
  }

  // Two tokens that merge are together as long as what they become, so that the tokens of a piece
  // always have its length. Adds the slots that are not free to `used`.
  static bool check_pairs(std::span<const uint64_t> slots, const Sizes& sizes, size_t& used) {
    constexpr uint64_t kId = (uint64_t{1} << PairRanks::kIdBits) - 1;
    unsigned sound = 1;
    size_t taken = 0;
    for (const uint64_t word : slots) {
      const uint32_t left = sizes(word >> (PairRanks::kRankBits + PairRanks::kIdBits));
      const uint32_t right = sizes(word >> PairRanks::kRankBits & kId);
      const uint32_t both = sizes(word & PairRanks::kRankMask);
      const unsigned empty = word == PairRanks::kEmpty ? 1 : 0;
      sound &=
          empty | (unsigned{left != 0} & unsigned{right != 0} & unsigned{left + right == both});
      taken += 1 - empty;
    }
    used += taken;
    return sound != 0;
  }

  static bool check_characters(const Bpe& bpe, const Sizes& sizes) {
    const auto is_none_or = [&](int32_t id, size_t bytes) {
      return unsigned{id == -1} | unsigned{sizes(static_cast<uint32_t>(id)) == bytes};
    };
    unsigned sound = 1;
    if (bpe.characters_.size() != size_t{1} << 16) return false;
    for (size_t point = 0; point < bpe.characters_.size(); ++point) {
      sound &= is_none_or(bpe.characters_[point], encoded_bytes(point));
    }
    if (bpe.ascii_pairs_.size() != size_t{1} << 14) return false;
    for (const int32_t rank : bpe.ascii_pairs_) sound &= is_none_or(rank, 2);
    return sound != 0;
  }

  static bool check_crossings(const Bpe& bpe) {
    const Table<uint32_t>& begins = bpe.crossing_begins_;
    if (begins.size() < 2 || begins.size() > Bpe::kAnyCrossing + size_t{1}) return false;
    if (begins[0] != 0 || begins[begins.size() - 1] != bpe.crossings_.size()) return false;
    if (!std::is_sorted(begins.begin(), begins.end())) return false;
    if (bpe.crossing_list_.size() != size_t{1} << 16) return false;
    unsigned sound = 1;
    for (const uint8_t list : bpe.crossing_list_) {
      sound &= unsigned{list == Bpe::kAnyCrossing} | unsigned{list < begins.size() - 1};
    }
    for (const Bpe::Crossing& crossing : bpe.crossings_) {
      sound &= unsigned{static_cast<uint32_t>(crossing.id) < bpe.size()};
    }
    return sound != 0;
  }
};

std::string BpeFile::make(const Bpe& bpe, const SourceId& source) {
  if (!BpeTables::fits(bpe)) return {};
  Header header = {};
  std::memcpy(header.magic, kMagic.data(), sizeof header.magic);
  header.version = kVersion;
  header.byte_order = kByteOrder;
  header.source = source;
  std::string out(aligned(sizeof header), '\0');
  size_t section = 0;
  const auto add = [&](const auto& table) {
    header.sections[section++] = {out.size(), table.size()};
    out.append(reinterpret_cast<const char*>(table.data()), table.size() * sizeof *table.data());
    out.resize(aligned(out.size()), '\0');
  };
  BpeTables::each(bpe, add);
  add(BpeTables::byte_ids(bpe));
  header.file_bytes = out.size();
  header.checksum = XXH3_64bits(out.data() + sizeof header, out.size() - sizeof header);
  std::memcpy(out.data(), &header, sizeof header);
  return out;
}

std::optional<Bpe> BpeFile::open(MappedFile file, const SourceId& source) {
  const std::string_view text = file.text();
  Header header;
  if (text.size() < sizeof header) return std::nullopt;
  std::memcpy(&header, text.data(), sizeof header);
  if (std::string_view(header.magic, sizeof header.magic) != kMagic || header.version != kVersion ||
      header.byte_order != kByteOrder || header.source != source ||
      header.file_bytes != text.size()) {
    return std::nullopt;
  }
  // All pages at once: one by one they cost more than reading them. No matter where it fails.
#ifdef MADV_POPULATE_READ
  ::madvise(const_cast<std::byte*>(file.data()), text.size(), MADV_POPULATE_READ);
#endif
  const std::string_view rest = text.substr(sizeof header);
  const auto checksum = [&] { return XXH3_64bits(rest.data(), rest.size()) == header.checksum; };
  size_t section = 0;
  bool inside = true;
  const auto read = [&]<class T>(Table<T>& table) {
    const Section& place = header.sections[section++];
    if (place.offset % kAlignment != 0 || place.offset > text.size() ||
        place.count > (text.size() - place.offset) / sizeof(T)) {
      inside = false;
      return;
    }
    table = Table<T>::view(
        {reinterpret_cast<const T*>(text.data() + place.offset), static_cast<size_t>(place.count)});
  };
  Bpe bpe = BpeTables::make();
  BpeTables::each(bpe, read);
  Table<TokenId> byte_ids;
  read(byte_ids);
  if (!inside || !BpeTables::check(bpe, {byte_ids.data(), byte_ids.size()}, checksum)) {
    return std::nullopt;
  }
  BpeTables::keep(bpe, std::move(file));
  return bpe;
}

}  // namespace quern
