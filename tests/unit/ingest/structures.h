// SPDX-License-Identifier: Apache-2.0
// Structures as the readers find them in a text, completed and checked as ingest does it.
#pragma once

#include <zlib.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/ingest/cif_reader.h"
#include "server/ingest/extxyz_reader.h"
#include "server/ingest/poscar_reader.h"
#include "server/ingest/structure.h"

namespace stoker::ingest {

// What a reader gave, in order; errors among it.
using Found = std::vector<absl::StatusOr<Structure>>;

inline absl::StatusOr<Structure> Checked(absl::StatusOr<Structure> structure, absl::string_view place = "file") {
  if (!structure.ok()) return structure;
  bool close;
  if (absl::Status status = CompleteStructure(place, &*structure); !status.ok()) return status;
  if (absl::Status status = CheckAtoms(place, *structure, &close); !status.ok()) return status;
  return structure;
}

inline absl::StatusOr<Structure> Poscar(absl::string_view text, const std::string& path = "POSCAR") {
  return Checked(ReadPoscar(text, path), path);
}

// The reading's own error is the last one.
template <typename Reader>
Found Collect(Reader reader) {
  Found found;
  const absl::Status status = reader([&](uint64_t, absl::StatusOr<Structure> structure) {
    found.push_back(Checked(std::move(structure)));
    return absl::OkStatus();
  });
  if (!status.ok()) found.push_back(status);
  return found;
}

inline Found Extxyz(absl::string_view text, const RecordKeys& keys = {}, const std::string& path = "a.xyz") {
  return Collect([&](StructureSink sink) { return ReadExtxyz(text, path, 1, keys, sink); });
}

inline Found Cif(absl::string_view text, const std::string& path = "a.cif") {
  return Collect([&](StructureSink sink) { return ReadCif(text, path, sink); });
}

inline std::string Gzip(absl::string_view text) {
  z_stream stream = {};
  deflateInit2(&stream, 6, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));  // zlib only reads it
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

}  // namespace stoker::ingest
