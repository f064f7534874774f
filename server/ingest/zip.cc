// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/zip.h"

#include <endian.h>
#include <string.h>
#include <zlib.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/ingest/file_bytes.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

constexpr uint32_t kEndSignature = 0x06054b50, kEnd64Signature = 0x06064b50, kLocator64Signature = 0x07064b50;
constexpr uint32_t kCentralSignature = 0x02014b50, kLocalSignature = 0x04034b50;
constexpr uint64_t kEndBytes = 22, kEnd64Bytes = 56, kLocator64Bytes = 20, kCentralBytes = 46, kLocalBytes = 30;
constexpr uint64_t kMaxCommentBytes = 65535;
constexpr uint64_t kDirectoryLimitBytes = 64 << 20;
constexpr uint32_t kIn64 = 0xFFFFFFFF;  // the value stands in the zip64 extra field
constexpr uint16_t kExtra64 = 1;
constexpr size_t kChunkBytes = 1 << 20;
constexpr absl::string_view kSaveAgain = "save it again with numpy.savez";

absl::Status BadZip(const std::string& path, absl::string_view why) {
  return BadData(path, absl::StrCat("malformed .npz: ", why), kSaveAgain);
}

// Little-endian number at `at`. REQUIRES: it is inside.
template <typename T>
T Get(absl::string_view bytes, uint64_t at) {
  T value;
  memcpy(&value, bytes.data() + at, sizeof(T));
  if constexpr (sizeof(T) == 2) return le16toh(value);
  if constexpr (sizeof(T) == 4) return le32toh(value);
  return le64toh(value);
}

absl::StatusOr<std::string> ReadPiece(int fd, uint64_t offset, uint64_t size, uint64_t file_bytes,
                                      const std::string& path) {
  if (offset > file_bytes || size > file_bytes - offset) return BadZip(path, "it points beyond its end");
  std::string bytes(size, '\0');
  STOKER_RETURN_IF_ERROR(ReadExactly(fd, offset, bytes.data(), size, path));
  return bytes;
}

struct Directory {
  uint64_t offset = 0;
  uint64_t size = 0;
};

absl::StatusOr<Directory> FindDirectory(int fd, uint64_t file_bytes, const std::string& path) {
  const uint64_t tail_bytes = std::min(file_bytes, kEndBytes + kMaxCommentBytes);
  STOKER_ASSIGN_OR_RETURN(const std::string tail, ReadPiece(fd, file_bytes - tail_bytes, tail_bytes, file_bytes, path));
  if (tail.size() < kEndBytes) return BadZip(path, "shorter than a zip archive");
  uint64_t at = tail.size() - kEndBytes;
  while (Get<uint32_t>(tail, at) != kEndSignature || at + kEndBytes + Get<uint16_t>(tail, at + 20) != tail.size()) {
    if (at-- == 0) return BadZip(path, "no central directory: cut off, or not a zip archive");
  }
  Directory directory{Get<uint32_t>(tail, at + 16), Get<uint32_t>(tail, at + 12)};
  const uint64_t end = file_bytes - tail_bytes + at;
  if (directory.offset != kIn64 && directory.size != kIn64 && Get<uint16_t>(tail, at + 10) != 0xFFFF) return directory;
  if (end < kLocator64Bytes) return BadZip(path, "no zip64 directory");
  STOKER_ASSIGN_OR_RETURN(const std::string locator,
                          ReadPiece(fd, end - kLocator64Bytes, kLocator64Bytes, file_bytes, path));
  if (Get<uint32_t>(locator, 0) != kLocator64Signature) return directory;  // values that happen to be all ones
  STOKER_ASSIGN_OR_RETURN(const std::string end64,
                          ReadPiece(fd, Get<uint64_t>(locator, 8), kEnd64Bytes, file_bytes, path));
  if (Get<uint32_t>(end64, 0) != kEnd64Signature) return BadZip(path, "no zip64 directory");
  return Directory{Get<uint64_t>(end64, 48), Get<uint64_t>(end64, 40)};
}

// Sizes that do not fit into 32 bits, from the extra field, in the order that the format gives them.
bool ReadExtra64(absl::string_view extra, bool need[3], uint64_t values[3]) {
  while (extra.size() >= 4) {
    const uint16_t id = Get<uint16_t>(extra, 0);
    const uint16_t size = Get<uint16_t>(extra, 2);
    if (size > extra.size() - 4) return false;
    absl::string_view field = extra.substr(4, size);
    extra.remove_prefix(4 + size);
    if (id != kExtra64) continue;
    for (int i = 0; i < 3; ++i) {
      if (!need[i]) continue;
      if (field.size() < 8) return false;
      values[i] = Get<uint64_t>(field, 0);
      field.remove_prefix(8);
    }
    return true;
  }
  return !need[0] && !need[1] && !need[2];
}

// One entry at the front of *rest, which is cut off.
absl::Status ReadEntry(int fd, uint64_t file_bytes, const std::string& path, absl::string_view* rest,
                       std::vector<ZipMember>* members) {
  if (rest->size() < kCentralBytes || Get<uint32_t>(*rest, 0) != kCentralSignature)
    return BadZip(path, "its directory");
  const uint64_t name_bytes = Get<uint16_t>(*rest, 28), extra_bytes = Get<uint16_t>(*rest, 30);
  const uint64_t entry_bytes = kCentralBytes + name_bytes + extra_bytes + Get<uint16_t>(*rest, 32);
  if (rest->size() < entry_bytes) return BadZip(path, "its directory is cut off");
  ZipMember member;
  member.name = std::string(rest->substr(kCentralBytes, name_bytes));
  member.crc = Get<uint32_t>(*rest, 16);
  const uint32_t bytes = Get<uint32_t>(*rest, 24), packed = Get<uint32_t>(*rest, 20), offset = Get<uint32_t>(*rest, 42);
  bool need[3] = {bytes == kIn64, packed == kIn64, offset == kIn64};
  uint64_t values[3] = {bytes, packed, offset};
  if (!ReadExtra64(rest->substr(kCentralBytes + name_bytes, extra_bytes), need, values)) {
    return BadZip(path, absl::StrCat("sizes of member ", Quoted(member.name)));
  }
  const uint16_t flags = Get<uint16_t>(*rest, 8), method = Get<uint16_t>(*rest, 10);
  rest->remove_prefix(entry_bytes);
  if (absl::EndsWith(member.name, "/")) return absl::OkStatus();
  if ((flags & 1) != 0) return BadZip(path, absl::StrCat("member ", Quoted(member.name), " is encrypted"));
  if (method != 0 && method != Z_DEFLATED) {
    return BadZip(path, absl::StrCat("member ", Quoted(member.name), " is packed by method ", method));
  }
  member.deflated = method == Z_DEFLATED;
  member.bytes = values[0];
  member.packed_bytes = values[1];
  STOKER_ASSIGN_OR_RETURN(const std::string local, ReadPiece(fd, values[2], kLocalBytes, file_bytes, path));
  member.offset = values[2] + kLocalBytes + Get<uint16_t>(local, 26) + Get<uint16_t>(local, 28);
  if (Get<uint32_t>(local, 0) != kLocalSignature || member.offset > file_bytes ||
      member.packed_bytes > file_bytes - member.offset || (!member.deflated && member.bytes != member.packed_bytes)) {
    return BadZip(path, absl::StrCat("member ", Quoted(member.name), " lies outside the file"));
  }
  members->push_back(std::move(member));
  return absl::OkStatus();
}

uint32_t Crc(uint32_t crc, absl::string_view bytes) {
  return static_cast<uint32_t>(crc32_z(crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

absl::Status BadChecksum(const ZipMember& member, const std::string& path) {
  return BadZip(path, absl::StrCat("member ", Quoted(member.name), " has another checksum than its directory says"));
}

// Inflates until `out` is full or the stream ends; the bytes written.
absl::StatusOr<uint64_t> Inflate(int fd, const ZipMember& member, std::string* out, const std::string& path) {
  z_stream stream = {};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) return absl::ResourceExhaustedError("inflate: out of memory");
  std::string chunk(kChunkBytes, '\0');
  uint64_t read = 0, done = 0;
  int result = Z_OK;
  absl::Status status;
  while (status.ok() && result == Z_OK && done < out->size()) {
    if (stream.avail_in == 0 && read < member.packed_bytes) {
      const auto want = static_cast<size_t>(std::min<uint64_t>(kChunkBytes, member.packed_bytes - read));
      status = ReadExactly(fd, member.offset + read, chunk.data(), want, path);
      read += want;
      stream.next_in = reinterpret_cast<Bytef*>(chunk.data());
      stream.avail_in = static_cast<uInt>(want);
    }
    const auto room = static_cast<uInt>(std::min<uint64_t>(kChunkBytes, out->size() - done));
    stream.next_out = reinterpret_cast<Bytef*>(out->data() + done);
    stream.avail_out = room;
    result = status.ok() ? inflate(&stream, Z_NO_FLUSH) : Z_OK;
    done += room - stream.avail_out;
  }
  inflateEnd(&stream);
  if (!status.ok()) return status;
  if (result != Z_OK && result != Z_STREAM_END) {
    return BadZip(path, absl::StrCat("member ", Quoted(member.name), " does not inflate"));
  }
  return done;
}

}  // namespace

absl::StatusOr<std::vector<ZipMember>> ReadZipDirectory(int fd, uint64_t file_bytes, const std::string& path) {
  STOKER_ASSIGN_OR_RETURN(const Directory where, FindDirectory(fd, file_bytes, path));
  if (where.size > kDirectoryLimitBytes) return BadZip(path, absl::StrCat("a directory of ", where.size, " bytes"));
  STOKER_ASSIGN_OR_RETURN(const std::string bytes, ReadPiece(fd, where.offset, where.size, file_bytes, path));
  std::vector<ZipMember> members;
  absl::string_view rest = bytes;
  while (!rest.empty()) STOKER_RETURN_IF_ERROR(ReadEntry(fd, file_bytes, path, &rest, &members));
  return members;
}

absl::StatusOr<std::string> ReadZipMember(int fd, const ZipMember& member, uint64_t limit, const std::string& path) {
  const uint64_t want = std::min(limit, member.bytes);
  std::string bytes;
  if (!member.deflated) {
    bytes.resize(want);
    STOKER_RETURN_IF_ERROR(ReadExactly(fd, member.offset, bytes.data(), want, path));
  } else {
    // Deflate packs at most 1032 to 1: a directory that claims more lies, and gets no memory.
    if (member.bytes / 1032 > member.packed_bytes)
      return BadZip(path, absl::StrCat("the size of ", Quoted(member.name)));
    bytes.resize(want);
    STOKER_ASSIGN_OR_RETURN(const uint64_t got, Inflate(fd, member, &bytes, path));
    if (got != want) return BadZip(path, absl::StrCat("member ", Quoted(member.name), " is shorter than it should be"));
  }
  if (want == member.bytes && Crc(0, bytes) != member.crc) return BadChecksum(member, path);
  return bytes;
}

absl::Status CheckStoredMember(int fd, const ZipMember& member, const std::string& path) {
  std::string chunk(kChunkBytes, '\0');
  uint32_t crc = 0;
  for (uint64_t done = 0; done < member.bytes;) {
    const auto want = static_cast<size_t>(std::min<uint64_t>(kChunkBytes, member.bytes - done));
    STOKER_RETURN_IF_ERROR(ReadExactly(fd, member.offset + done, chunk.data(), want, path));
    crc = Crc(crc, absl::string_view(chunk).substr(0, want));
    done += want;
  }
  return crc == member.crc ? absl::OkStatus() : BadChecksum(member, path);
}

}  // namespace stoker::ingest
