// SPDX-License-Identifier: Apache-2.0
// Bytes of .npy and .npz files as numpy writes them, and broken ones as it does not.
#pragma once

#include <string.h>
#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace stoker::ingest {

template <typename T>
std::string ItemBytes(const std::vector<T>& items, bool big_endian = false) {
  std::string bytes;
  for (const T item : items) {
    std::string one(reinterpret_cast<const char*>(&item), sizeof(T));
    if (big_endian) std::reverse(one.begin(), one.end());
    bytes += one;
  }
  return bytes;
}

inline std::string Little(uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text.push_back(static_cast<char>(value >> (8 * i)));
  return text;
}

// `align`: of the data's start; 64 in files of today, 16 in old ones.
inline std::string NpyBytes(const std::string& header, const std::string& data, int version = 1, size_t align = 64) {
  const int size_bytes = version == 1 ? 2 : 4;
  std::string text = header;
  while ((8 + static_cast<size_t>(size_bytes) + text.size() + 1) % align != 0) text += ' ';
  text += '\n';
  return absl::StrCat("\x93NUMPY", std::string(1, static_cast<char>(version)), std::string(1, '\0'),
                      Little(text.size(), size_bytes), text, data);
}

inline std::string NpyDict(const std::string& descr, const std::string& shape, bool fortran = false) {
  return absl::StrCat("{'descr': '", descr, "', 'fortran_order': ", fortran ? "True" : "False", ", 'shape': ", shape,
                      ", }");
}

inline std::string Npy(const std::string& descr, const std::string& shape, const std::string& data,
                       bool fortran = false) {
  return NpyBytes(NpyDict(descr, shape, fortran), data);
}

struct ZipEntry {
  std::string name;
  std::string bytes;
  bool deflate = false;
  bool zip64 = false;            // sizes only in the zip64 extra fields
  bool data_descriptor = false;  // zeros in the local header
};

inline std::string Deflate(const std::string& bytes) {
  z_stream stream = {};
  deflateInit2(&stream, 6, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string packed(deflateBound(&stream, bytes.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

inline std::string ZipBytes(const std::vector<ZipEntry>& entries, const std::string& comment = "") {
  std::string file, directory;
  for (const ZipEntry& entry : entries) {
    const std::string packed = entry.deflate ? Deflate(entry.bytes) : entry.bytes;
    const uint64_t crc = crc32_z(0, reinterpret_cast<const Bytef*>(entry.bytes.data()), entry.bytes.size());
    const std::string method = Little(entry.deflate ? 8 : 0, 2);
    const std::string crc_bytes = Little(crc, 4);
    const std::string sizes =
        entry.zip64 ? Little(~uint64_t{0}, 8) : Little(packed.size(), 4) + Little(entry.bytes.size(), 4);
    const std::string extra =
        entry.zip64 ? Little(1, 2) + Little(16, 2) + Little(entry.bytes.size(), 8) + Little(packed.size(), 8) : "";
    const std::string local_sizes = entry.data_descriptor ? Little(0, 8) : sizes;
    const uint64_t offset = file.size();
    file += Little(0x04034b50, 4) + Little(45, 2) + Little(entry.data_descriptor ? 8 : 0, 2) + method + Little(0, 4) +
            (entry.data_descriptor ? Little(0, 4) : crc_bytes) + local_sizes + Little(entry.name.size(), 2) +
            Little(extra.size(), 2) + entry.name + extra + packed;
    if (entry.data_descriptor) file += Little(0x08074b50, 4) + crc_bytes + sizes;
    directory += Little(0x02014b50, 4) + Little(45, 2) + Little(45, 2) + Little(entry.data_descriptor ? 8 : 0, 2) +
                 method + Little(0, 4) + crc_bytes + sizes + Little(entry.name.size(), 2) + Little(extra.size(), 2) +
                 Little(0, 2) + Little(0, 4) + Little(0, 4) + Little(offset, 4) + entry.name + extra;
  }
  const uint64_t start = file.size();
  return file + directory + Little(0x06054b50, 4) + Little(0, 4) + Little(entries.size(), 2) +
         Little(entries.size(), 2) + Little(directory.size(), 4) + Little(start, 4) + Little(comment.size(), 2) +
         comment;
}

}  // namespace stoker::ingest
