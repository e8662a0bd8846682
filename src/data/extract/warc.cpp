#include "data/extract/warc.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <memory>

#include "core/ascii.h"
#include "core/error.h"

namespace quern {
namespace {

constexpr size_t kMaxHeader = 32 << 10;
constexpr size_t kStep = 64 << 10;

std::string_view trimmed(std::string_view text) {
  const auto space = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && space(text.front())) text.remove_prefix(1);
  while (!text.empty() && space(text.back())) text.remove_suffix(1);
  return text;
}

std::string lowered(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](char c) { return ascii_lower(c); });
  return out;
}

using Fields = std::vector<std::pair<std::string, std::string>>;

// "Name: value" lines, also folded ones; what is wrong, or nothing.
std::string read_fields(std::string_view header, Fields& fields) {
  for (size_t at = 0; at < header.size();) {
    const size_t end = std::min(header.find('\n', at), header.size());
    const std::string_view line = header.substr(at, end - at);
    at = end + 1;
    if (trimmed(line).empty()) continue;
    if ((line.front() == ' ' || line.front() == '\t') && !fields.empty()) {
      fields.back().second.append(" ").append(trimmed(line));
      continue;
    }
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return "a header line has no colon";
    fields.emplace_back(lowered(trimmed(line.substr(0, colon))), trimmed(line.substr(colon + 1)));
  }
  return {};
}

std::string_view value_of(const Fields& fields, std::string_view name) noexcept {
  for (const auto& [key, value] : fields) {
    if (key == name) return value;
  }
  return {};
}

// The length of a header with its blank line; 0 where it doesn't end.
size_t header_size(std::string_view text) noexcept {
  const size_t crlf = text.find("\r\n\r\n"), lf = text.find("\n\n");
  if (crlf == std::string_view::npos && lf == std::string_view::npos) return 0;
  return crlf < lf ? crlf + 4 : lf + 2;
}

std::optional<size_t> whole_number(std::string_view text, int base = 10) {
  size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

class Inflater {
 public:
  explicit Inflater(int window_bits) {
    if (::inflateInit2(&stream_, window_bits) != Z_OK)
      throw Error(Kind::NoResources, "out of memory");
  }
  ~Inflater() { ::inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // Takes from `in`, appends to `out`, at most kStep: Z_OK, Z_STREAM_END or an error of zlib.
  int step(std::string_view& in, std::string& out) {
    const size_t had = out.size();
    out.resize(had + kStep);
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data()));
    stream_.avail_in = static_cast<uInt>(std::min<size_t>(in.size(), 1 << 20));
    const uInt given = stream_.avail_in;
    stream_.next_out = reinterpret_cast<Bytef*>(out.data() + had);
    stream_.avail_out = kStep;
    const int result = ::inflate(&stream_, Z_NO_FLUSH);
    in.remove_prefix(given - stream_.avail_in);
    out.resize(had + kStep - stream_.avail_out);
    return result;
  }

 private:
  z_stream stream_ = {};
};

// All of a compressed body; nothing where it is damaged. Throws BadInput for one that grows past
// the limit of a record.
std::optional<std::string> inflate_all(std::string_view bytes, int window_bits) {
  Inflater inflater(window_bits);
  std::string out;
  while (true) {
    const size_t left = bytes.size(), had = out.size();
    const int result = inflater.step(bytes, out);
    if (out.size() > WarcReader::kMaxRecord)
      throw_bad_input("a body grows past 32 MB when unpacked");
    if (result == Z_STREAM_END) return out;
    if (result != Z_OK || (left == bytes.size() && had == out.size())) return std::nullopt;
  }
}

std::string joined_chunks(std::string_view body) {
  std::string out;
  while (true) {
    const size_t end = body.find('\n');
    if (end == std::string_view::npos) throw_bad_input("a chunked body is cut off");
    std::string_view size_text = trimmed(body.substr(0, end));
    size_text = trimmed(size_text.substr(0, size_text.find(';')));
    const auto size = whole_number(size_text, 16);
    if (!size) throw_bad_input("a chunk's size is no number");
    body.remove_prefix(end + 1);
    if (*size == 0) return out;
    if (*size > body.size()) throw_bad_input("a chunk reaches past the record");
    out += body.substr(0, *size);
    body.remove_prefix(*size);
    if (body.starts_with("\r\n")) {
      body.remove_prefix(2);
    } else if (body.starts_with("\n")) {
      body.remove_prefix(1);
    } else {
      throw_bad_input("a chunk isn't as long as it says");
    }
  }
}

}  // namespace

std::string_view WarcRecord::field(std::string_view name) const noexcept {
  return value_of(fields, name);
}

struct WarcReader::State {
  explicit State(const fs::path& path) : file(path), bytes(file.text()) {
    packed = is_member(0);
    if (!packed && !bytes.empty() && !bytes.starts_with("WARC/") &&
        bytes.find("WARC/1.") > kMaxHeader) {
      throw_bad_input(path.string() + ": is no web archive: begins neither with WARC/ nor as gzip");
    }
  }

  bool is_member(size_t at) const noexcept {
    return bytes.substr(at, 3) == "\x1f\x8b\x08" && at + 18 <= bytes.size() &&
           (static_cast<unsigned char>(bytes[at + 3]) & 0xE0) == 0;
  }

  // A member whose first bytes unpack to a record's, whatever becomes of it further on.
  bool begins_record(size_t at) const {
    if (!is_member(at)) return false;
    std::string out;
    std::string_view in = bytes.substr(at, 1024);
    Inflater trial(15 + 16);
    trial.step(in, out);
    return out.starts_with("WARC/");
  }

  size_t next_member(size_t from) const {
    for (size_t at = bytes.find("\x1f\x8b\x08", from); at != std::string_view::npos;
         at = bytes.find("\x1f\x8b\x08", at + 1)) {
      if (begins_record(at)) return at;
    }
    return bytes.size();
  }

  // More text of the current member, of those that go on with it too; false where it ends.
  bool fill() {
    if (!packed) {
      const size_t count = std::min(kStep, bytes.size() - position);
      text.append(bytes.substr(position, count));
      position += count;
      return count > 0;
    }
    while (true) {
      if (inflater == nullptr) {
        // A record may go on in the next member where that begins none itself.
        if (position >= bytes.size() || !is_member(position) ||
            (member_open && begins_record(position))) {
          return false;
        }
        if (!member_open) member = position;
        member_open = true;
        inflater = std::make_unique<Inflater>(15 + 16);
      }
      std::string_view in = bytes.substr(position);
      const size_t left = in.size(), had = text.size();
      const int result = inflater->step(in, text);
      position += left - in.size();
      if (result == Z_STREAM_END) {
        inflater.reset();
      } else if (result != Z_OK || (left == in.size() && had == text.size())) {
        broken = true;
        inflater.reset();
        text.resize(had);
        return false;
      }
      if (text.size() > had) return true;
    }
  }

  // Text up to `size` bytes behind `begin`, as far as there is any.
  void need(size_t size) {
    while (text.size() - begin < size && !broken && fill()) {
    }
  }

  // Skips a damaged part: goes on at the next member, or the next line that begins a record.
  void resume(size_t from) {
    if (packed) {
      position = next_member(member + 1);
      text.clear();
      begin = 0;
      inflater.reset();
      member_open = broken = false;
      return;
    }
    const size_t start = position - (text.size() - begin) + from;  // in the file
    size_t found = bytes.find("\nWARC/1.", start);
    found = found == std::string_view::npos ? bytes.size() : found + 1;
    text.clear();
    begin = 0;
    position = found;
  }

  int64_t place() const {
    return static_cast<int64_t>(packed ? member : position - (text.size() - begin));
  }

  std::optional<WarcRecord> next() {
    if (begin > (1 << 20)) {
      text.erase(0, begin);
      begin = 0;
    }
    // Blank lines between records.
    while (true) {
      need(1);
      while (begin < text.size() && (text[begin] == '\r' || text[begin] == '\n')) ++begin;
      if (begin < text.size()) break;
      text.clear();
      begin = 0;
      if (broken) break;
      if (!packed) {
        if (position >= bytes.size()) return std::nullopt;
        continue;
      }
      if (inflater != nullptr) continue;
      // The member is done; what lies between members belongs to none.
      text.clear();
      begin = 0;
      member_open = false;
      if (position >= bytes.size()) return std::nullopt;
      if (!is_member(position)) {
        member = position;
        WarcRecord bad;
        bad.offset = static_cast<int64_t>(position);
        bad.damage = "no gzip member begins here";
        resume(0);
        return bad;
      }
    }
    WarcRecord record;
    record.offset = place();
    const auto damaged = [&](std::string what, size_t from) {
      record.damage = std::move(what);
      record.fields.clear();
      record.block.clear();
      resume(from);
      return std::optional<WarcRecord>(std::move(record));
    };
    const std::string_view cut =
        packed ? "its gzip member is cut off or damaged" : "the file ends within the record";
    size_t header = 0;
    for (size_t size = 512; size <= kMaxHeader && header == 0; size *= 2) {
      need(size);
      header = header_size(std::string_view(text).substr(begin, kMaxHeader));
      if (text.size() - begin < size) break;
    }
    if (!std::string_view(text).substr(begin).starts_with("WARC/")) {
      return damaged(broken ? std::string(cut) : "no line WARC/ begins it", 0);
    }
    if (header == 0)
      return damaged(broken || !packed ? std::string(cut) : "its header doesn't end", 1);
    const std::string_view head = std::string_view(text).substr(begin, header);
    std::string wrong = read_fields(head.substr(head.find('\n') + 1), record.fields);
    if (!wrong.empty()) return damaged(std::move(wrong), header - 1);
    const auto length = whole_number(record.field("content-length"));
    if (!length) return damaged("Content-Length is absent or no number", header - 1);
    if (*length > kMaxRecord) {
      return damaged(fmt::format("Content-Length {} is past 32 MB", *length), header - 1);
    }
    if (!packed) {
      // Before anything is read for a length that lies.
      const size_t end = static_cast<size_t>(record.offset) + header + *length;
      if (end > bytes.size()) return damaged(std::string(cut), header - 1);
      const std::string_view behind = bytes.substr(end, 4);
      if (!behind.starts_with("\n\n") && !trimmed(behind).empty()) {
        return damaged("Content-Length ends before the record does", header - 1);
      }
    }
    need(header + *length + 5);  // to the end of its member, whose checksum is looked at
    if (text.size() - begin < header + *length) {
      if (broken) return damaged(std::string(cut), 0);
      return damaged(packed ? "Content-Length reaches past its gzip member" : std::string(cut),
                     header - 1);
    }
    const std::string_view rest = std::string_view(text).substr(begin + header + *length);
    const size_t ends = rest.starts_with("\r\n\r\n") ? 4 : rest.starts_with("\n\n") ? 2 : 0;
    if (ends == 0) {
      if (broken) return damaged(std::string(cut), 0);
      if (!trimmed(rest.substr(0, 4)).empty()) {
        return damaged("Content-Length ends before the record does", header - 1);
      }
    }
    record.block = text.substr(begin + header, *length);
    begin += header + *length + ends;
    if (broken) return damaged(std::string(cut), 0);
    return record;
  }

  MappedFile file;
  std::string_view bytes;
  bool packed = false, broken = false, member_open = false;
  size_t position = 0;  // in the file, of what is read next
  size_t member = 0;    // where the current member begins
  std::unique_ptr<Inflater> inflater;
  std::string text;  // decompressed; read up to `begin`
  size_t begin = 0;
};

WarcReader::WarcReader(const fs::path& path) : state_(std::make_unique<State>(path)) {}
WarcReader::~WarcReader() = default;
std::optional<WarcRecord> WarcReader::next() { return state_->next(); }
uint64_t WarcReader::consumed_bytes() const noexcept { return state_->position; }

HttpResponse read_http_response(std::string_view block) {
  const size_t header = header_size(block);
  if (header == 0 || !block.starts_with("HTTP/")) throw_bad_input("holds no HTTP response");
  const size_t line_end = block.find('\n');
  const std::string_view line = trimmed(block.substr(0, line_end));
  HttpResponse out;
  const size_t space = line.find(' ');
  const auto status =
      whole_number(space == std::string_view::npos ? "" : line.substr(space + 1, 3));
  if (!status) throw_bad_input("its HTTP status is no number");
  out.status = static_cast<int>(*status);
  Fields fields;
  read_fields(block.substr(line_end + 1, header - line_end - 1), fields);
  out.content_type = value_of(fields, "content-type");
  out.body = block.substr(header);
  if (lowered(value_of(fields, "transfer-encoding")).find("chunked") != std::string::npos) {
    out.body = joined_chunks(out.body);
  }
  std::string coding = lowered(value_of(fields, "content-encoding"));
  if (coding.empty() || coding == "identity" || out.status != 200) return out;
  std::optional<std::string> body;
  if (coding == "gzip" || coding == "x-gzip") {
    body = inflate_all(out.body, 15 + 16);
  } else if (coding == "deflate") {
    body = inflate_all(out.body, 15);
    if (!body) body = inflate_all(out.body, -15);  // as some servers mean it
  } else {
    throw_bad_input(
        fmt::format("its Content-Encoding '{}' is none of gzip, deflate", printable(coding, 40)));
  }
  if (!body) throw_bad_input("its " + coding + " body is damaged");
  out.body = std::move(*body);
  return out;
}

}  // namespace quern
