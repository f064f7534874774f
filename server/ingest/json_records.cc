// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/json_records.h"

#include <zlib.h>

#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/ingest/file_bytes.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

constexpr size_t kChunkBytes = 1 << 18;
constexpr absl::string_view kCorrect = "correct the file; a list of records, or columns and data, is expected";
constexpr absl::string_view kUtf8Mark = "\xEF\xBB\xBF";
constexpr size_t kMaxKeyBytes = 256;
constexpr int kGzipWindow = MAX_WBITS + 16;

// The unpacked bytes of a file, chunk by chunk.
class ByteStream {
 public:
  static absl::StatusOr<std::unique_ptr<ByteStream>> Open(const std::string& path, uint64_t offset) {
    auto stream = std::unique_ptr<ByteStream>(new ByteStream(path, offset));
    STOKER_ASSIGN_OR_RETURN(stream->source_, OpenRegularFile(path));
    STOKER_ASSIGN_OR_RETURN(stream->gzip_, IsGzip(path));
    if (stream->gzip_ && inflateInit2(&stream->zlib_, kGzipWindow) != Z_OK) {
      return absl::ResourceExhaustedError("inflate: out of memory");
    }
    return stream;
  }
  ~ByteStream() {
    if (gzip_) inflateEnd(&zlib_);
  }
  ByteStream(const ByteStream&) = delete;
  ByteStream& operator=(const ByteStream&) = delete;

  // The next bytes; none at the end. Valid until the next call.
  absl::StatusOr<absl::string_view> Next() {
    if (gzip_) return Inflate();
    STOKER_RETURN_IF_ERROR(Fill());
    return absl::string_view(packed_);
  }

 private:
  ByteStream(const std::string& path, uint64_t offset) : path_(path), offset_(offset) {}

  absl::Status Fill() {
    packed_.resize(kChunkBytes);
    const absl::StatusOr<size_t> got = ReadSome(source_.fd.get(), offset_, packed_.data(), kChunkBytes, path_);
    packed_.resize(got.ok() ? *got : 0);
    offset_ += packed_.size();
    return got.status();
  }

  absl::StatusOr<absl::string_view> Inflate() {
    unpacked_.resize(kChunkBytes);
    zlib_.next_out = reinterpret_cast<Bytef*>(unpacked_.data());
    zlib_.avail_out = static_cast<uInt>(unpacked_.size());
    while (zlib_.avail_out == kChunkBytes && !finished_) {
      if (zlib_.avail_in == 0) {
        STOKER_RETURN_IF_ERROR(Fill());
        if (packed_.empty()) return BadData(path_, "cut off: the gzip stream ends early", "fetch the file again");
        zlib_.next_in = reinterpret_cast<Bytef*>(packed_.data());
        zlib_.avail_in = static_cast<uInt>(packed_.size());
      }
      const int result = inflate(&zlib_, Z_NO_FLUSH);
      finished_ = result == Z_STREAM_END;
      if (result != Z_OK && !finished_)
        return BadData(path_, "the gzip stream does not inflate", "fetch the file again");
    }
    unpacked_.resize(kChunkBytes - zlib_.avail_out);
    return absl::string_view(unpacked_);
  }

  const std::string path_;
  OpenSource source_;
  uint64_t offset_;
  bool gzip_ = false;
  bool finished_ = false;
  z_stream zlib_ = {};
  std::string packed_, unpacked_;
};

// Python's json writes these; as values they are missing.
void ReplaceNotNumbers(std::string* text) {
  if (!absl::StrContains(*text, "NaN") && !absl::StrContains(*text, "Infinity")) return;
  std::string out;
  bool quoted = false;
  for (size_t i = 0; i < text->size(); ++i) {
    const char c = (*text)[i];
    if (quoted && c == '\\' && i + 1 < text->size()) {
      out.push_back(c);
      out.push_back((*text)[++i]);
      continue;
    }
    if (c == '"') quoted = !quoted;
    const absl::string_view rest = absl::string_view(*text).substr(i);
    size_t skip = 0;
    for (const absl::string_view word : {"NaN", "-Infinity", "Infinity"}) {
      if (!quoted && skip == 0 && absl::StartsWith(rest, word)) skip = word.size();
    }
    if (skip == 0) {
      out.push_back(c);
    } else {
      out += "null";
      i += skip - 1;
    }
  }
  *text = std::move(out);
}

class Scanner {
 public:
  Scanner(const std::string& path, const JsonStart& start, JsonSink sink)
      : path_(path), sink_(sink), offset_(start.offset), index_(start.index) {
    if (start.offset > 0) state_ = State::kArray;
  }

  // False when no more bytes are wanted.
  absl::StatusOr<bool> Take(absl::string_view bytes) {
    for (const char c : bytes) {
      STOKER_ASSIGN_OR_RETURN(const bool more, TakeByte(c));
      ++offset_;
      if (!more) return false;
    }
    return true;
  }
  absl::Status Finish() const {
    return state_ == State::kEnd ? absl::OkStatus() : Bad("cut off: the JSON document ends early");
  }

 private:
  enum class State { kStart, kArray, kObject, kKey, kColon, kValue, kSkip, kEnd };

  absl::Status Bad(absl::string_view reason) const {
    return BadData(path_, absl::StrCat(reason, " (at byte ", offset_, ")"), kCorrect);
  }
  static bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
  bool inside() const { return quoted_ || depth_ > 0; }  // of a string or brackets, in an element or value

  absl::StatusOr<bool> TakeByte(char c);
  absl::StatusOr<bool> TakeInArray(char c);
  absl::Status TakeInObject(char c);
  absl::StatusOr<bool> EndElement();
  absl::Status Track(char c);

  const std::string& path_;
  const JsonSink sink_;
  State state_ = State::kStart;
  bool in_object_ = false;  // the array is a value of the document's object
  bool quoted_ = false, escaped_ = false;
  uint64_t depth_ = 0;
  uint64_t offset_;
  uint64_t index_;
  uint64_t begin_ = 0;
  std::string key_;
  std::string text_;
};

absl::Status Scanner::Track(char c) {
  if (quoted_) {
    quoted_ = escaped_ || c != '"';
    escaped_ = !escaped_ && c == '\\';
  } else if (c == '"') {
    quoted_ = true;
  } else if (c == '[' || c == '{') {
    ++depth_;
  } else if (c == ']' || c == '}') {
    if (depth_ == 0) return Bad("a bracket that nothing opened");
    --depth_;
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> Scanner::EndElement() {
  while (!text_.empty() && IsSpace(text_.back())) text_.pop_back();
  if (text_.empty()) return Bad("an element without a value");
  const uint64_t end = begin_ + text_.size();
  ReplaceNotNumbers(&text_);
  STOKER_ASSIGN_OR_RETURN(const bool more, sink_({key_, index_, begin_, end, text_}));
  ++index_;
  text_.clear();
  return more;
}

absl::StatusOr<bool> Scanner::TakeInArray(char c) {
  if (!inside() && (c == ',' || c == ']')) {
    bool more = true;
    const bool empty_array = c == ']' && index_ == 0 && text_.empty();
    if (!empty_array) {
      STOKER_ASSIGN_OR_RETURN(more, EndElement());
    }
    if (c == ']') state_ = in_object_ ? State::kObject : State::kEnd;
    return more;
  }
  if (text_.empty()) {
    if (IsSpace(c)) return true;
    begin_ = offset_;
  }
  if (text_.size() == kMaxJsonElementBytes) return Bad("a record that is too large");
  text_.push_back(c);
  STOKER_RETURN_IF_ERROR(Track(c));
  return true;
}

absl::Status Scanner::TakeInObject(char c) {
  if (state_ == State::kKey) {
    STOKER_RETURN_IF_ERROR(Track(c));
    if (!quoted_) {
      state_ = State::kColon;
    } else if (key_.size() < kMaxKeyBytes) {
      key_.push_back(c);
    }
    return absl::OkStatus();
  }
  if (state_ == State::kSkip && (inside() || (c != ',' && c != '}'))) return Track(c);
  if (IsSpace(c)) return absl::OkStatus();
  if (state_ == State::kColon) {
    if (c != ':') return Bad("no colon after a key");
    state_ = State::kValue;
  } else if (state_ == State::kValue && c == '[') {
    state_ = State::kArray;
    in_object_ = true;
    index_ = 0;
  } else if (state_ == State::kValue) {
    state_ = State::kSkip;
    return Track(c);
  } else if (c == '}') {
    state_ = State::kEnd;
  } else if (c == ',') {
    state_ = State::kObject;
  } else if (c == '"' && state_ == State::kObject) {
    key_.clear();
    state_ = State::kKey;
    return Track(c);
  } else {
    return Bad("no key where one should be");
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> Scanner::TakeByte(char c) {
  if (state_ == State::kArray) return TakeInArray(c);
  if (state_ == State::kStart || state_ == State::kEnd) {
    if (IsSpace(c) || (offset_ < kUtf8Mark.size() && c == kUtf8Mark[offset_])) return true;
    if (state_ == State::kEnd) return Bad("text after the end of the document");
    if (c != '[' && c != '{') return Bad("not a JSON array or object");
    state_ = c == '[' ? State::kArray : State::kObject;
    return true;
  }
  STOKER_RETURN_IF_ERROR(TakeInObject(c));
  return true;
}

}  // namespace

absl::StatusOr<bool> IsGzip(const std::string& path) {
  STOKER_ASSIGN_OR_RETURN(const OpenSource source, OpenRegularFile(path));
  char magic[2] = {};
  STOKER_RETURN_IF_ERROR(ReadSome(source.fd.get(), 0, magic, sizeof(magic), path).status());
  return magic[0] == '\x1f' && magic[1] == '\x8b';
}

absl::Status ScanJson(const std::string& path, const JsonStart& start, JsonSink sink) {
  STOKER_ASSIGN_OR_RETURN(const auto stream, ByteStream::Open(path, start.offset));
  Scanner scanner(path, start, sink);
  while (true) {
    STOKER_ASSIGN_OR_RETURN(const absl::string_view bytes, stream->Next());
    if (bytes.empty()) return scanner.Finish();
    STOKER_ASSIGN_OR_RETURN(const bool more, scanner.Take(bytes));
    if (!more) return absl::OkStatus();
  }
}

}  // namespace stoker::ingest
