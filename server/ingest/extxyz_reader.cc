// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/extxyz_reader.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/types/span.h"
#include "server/ingest/element.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

constexpr absl::string_view kCorrect = "correct the frame, or remove it";
constexpr absl::string_view kPlainProperties = "species:S:1:pos:R:3";
constexpr uint64_t kLeastAtomBytes = 8;  // "H 0 0 0" and the end of the line

struct Pair {
  absl::string_view key, value;
};

// The value at the front of *rest, without what it is quoted by; cut off.
absl::string_view TakeValue(absl::string_view* rest) {
  constexpr absl::string_view kOpen = "\"'[{", kClose = "\"']}";
  const size_t kind = rest->empty() ? kOpen.npos : kOpen.find(rest->front());
  if (kind == kOpen.npos) {
    const absl::string_view value = rest->substr(0, rest->find_first_of(" \t"));
    rest->remove_prefix(value.size());
    return value;
  }
  size_t depth = 1, at = 1;
  for (; at < rest->size() && depth > 0; ++at) {
    if ((*rest)[at] == kClose[kind]) {
      --depth;
    } else if ((*rest)[at] == kOpen[kind]) {
      ++depth;
    }
  }
  const absl::string_view value = rest->substr(1, depth == 0 ? at - 2 : rest->npos);
  rest->remove_prefix(at);
  return value;
}

std::vector<Pair> ParseComment(absl::string_view rest) {
  std::vector<Pair> pairs;
  while (!(rest = Trim(rest)).empty()) {
    const size_t stop = std::min(rest.find_first_of("= \t"), rest.size());
    const absl::string_view key = rest.substr(0, stop);
    rest.remove_prefix(stop);
    const absl::string_view after = Trim(rest);
    if (!absl::StartsWith(after, "=")) {
      pairs.push_back({key, "T"});
      continue;
    }
    rest = Trim(after.substr(1));
    pairs.push_back({key, TakeValue(&rest)});
  }
  return pairs;
}

std::optional<absl::string_view> Find(absl::Span<const Pair> pairs, absl::string_view key) {
  for (const Pair& pair : pairs) {
    if (pair.key == key) return pair.value;
  }
  return std::nullopt;
}

std::vector<absl::string_view> ListItems(absl::string_view value) {
  return absl::StrSplit(value, absl::ByAnyChar(" \t,[]{}\"'"), absl::SkipEmpty());
}

struct Columns {
  size_t species = SIZE_MAX;
  size_t pos = SIZE_MAX;
  size_t total = 0;
  bool numbers = false;  // species are atomic numbers
};

class Frame {
 public:
  Frame(std::string place, absl::string_view comment, const RecordKeys& keys)
      : place_(std::move(place)), pairs_(ParseComment(comment)), keys_(keys) {}

  absl::StatusOr<Structure> Read(absl::Span<const absl::string_view> lines);

 private:
  absl::Status Bad(absl::string_view reason) const { return BadData(place_, reason, kCorrect); }
  absl::Status ReadLattice();
  absl::Status ReadPeriodic();
  absl::Status ReadColumns();
  absl::Status ReadAtom(size_t number, absl::string_view line);
  absl::Status ReadKeys();

  const std::string place_;
  const std::vector<Pair> pairs_;
  const RecordKeys& keys_;
  Columns columns_;
  Structure structure_;
};

absl::Status Frame::ReadLattice() {
  std::optional<absl::string_view> text = Find(pairs_, "Lattice");
  if (!text.has_value()) text = Find(pairs_, "lattice");
  if (!text.has_value()) return absl::OkStatus();
  const std::vector<absl::string_view> items = ListItems(*text);
  if (items.size() != 9) return Bad(absl::StrCat("wrong lattice: ", items.size(), " numbers, there must be 9"));
  for (size_t i = 0; i < 9; ++i) {
    if (!ParseValue(items[i], &structure_.lattice[i])) {
      return Bad(absl::StrCat("not a number: ", Quoted(items[i]), " of the lattice"));
    }
  }
  structure_.periodic = {true, true, true};
  return absl::OkStatus();
}

absl::Status Frame::ReadPeriodic() {
  const std::optional<absl::string_view> text = Find(pairs_, "pbc");
  if (!text.has_value()) return absl::OkStatus();
  const std::vector<absl::string_view> items = ListItems(*text);
  if (items.size() != 3) return Bad(absl::StrCat("wrong pbc: ", Quoted(*text), ", there must be three of T and F"));
  for (size_t k = 0; k < 3; ++k) {
    const std::string item = absl::AsciiStrToLower(items[k]);
    if (item != "t" && item != "true" && item != "1" && item != "f" && item != "false" && item != "0") {
      return Bad(absl::StrCat("wrong pbc: ", Quoted(items[k]), " is neither T nor F"));
    }
    structure_.periodic[k] = item[0] == 't' || item[0] == '1';
  }
  return absl::OkStatus();
}

absl::Status Frame::ReadColumns() {
  const absl::string_view text = Find(pairs_, "Properties").value_or(kPlainProperties);
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ':');
  for (size_t i = 0; i + 2 < parts.size(); i += 3) {
    uint32_t count;
    const bool known = parts[i + 1].size() == 1 && absl::StrContains("SIRL", parts[i + 1]);
    if (!known || !absl::SimpleAtoi(parts[i + 2], &count) || count == 0 || count > 1000) {
      return Bad(absl::StrCat("wrong Properties: ", Quoted(parts[i]), " has no type of S, I, R, L and a width"));
    }
    const bool numbers = parts[i] == "Z" && parts[i + 1] == "I" && columns_.species == SIZE_MAX;
    if ((parts[i] == "species" && parts[i + 1] == "S") || numbers) {
      columns_.species = columns_.total;
      columns_.numbers = numbers;
    }
    if (parts[i] == "pos" && parts[i + 1] == "R" && count == 3) columns_.pos = columns_.total;
    columns_.total += count;
  }
  if (parts.size() % 3 != 0 || columns_.species == SIZE_MAX || columns_.pos == SIZE_MAX) {
    return Bad(absl::StrCat("wrong Properties: ", Quoted(text), " needs species:S:1 and pos:R:3"));
  }
  return absl::OkStatus();
}

absl::Status Frame::ReadAtom(size_t number, absl::string_view line) {
  const std::vector<absl::string_view> fields = Fields(line);
  const std::string what = absl::StrCat("atom ", number);
  if (fields.size() < columns_.total) {
    return Bad(absl::StrCat("too few columns: ", what, " has ", fields.size(), " of ", columns_.total));
  }
  const absl::string_view species = fields[columns_.species];
  uint32_t z = 0;
  if (!columns_.numbers) {
    z = AtomicNumber(species);
  } else if (!absl::SimpleAtoi(species, &z) || z > kMaxAtomicNumber) {
    z = 0;
  }
  if (z == 0) return Bad(absl::StrCat("unknown element: ", Quoted(species), " of ", what));
  structure_.atomic_numbers.push_back(static_cast<uint8_t>(z));
  for (size_t k = 0; k < 3; ++k) {
    double value;
    const absl::string_view field = fields[columns_.pos + k];
    if (!ParseValue(field, &value)) return Bad(absl::StrCat("not a number: ", Quoted(field), " of ", what));
    structure_.coords.push_back(value);
  }
  return absl::OkStatus();
}

absl::Status Frame::ReadKeys() {
  if (!keys_.id.empty()) {
    const std::optional<absl::string_view> id = Find(pairs_, keys_.id);
    if (!id.has_value()) return Bad(absl::StrCat("missing id: no key ", Quoted(keys_.id)));
    structure_.id = std::string(*id);
  }
  for (const absl::string_view key : kIdKeys) {
    if (structure_.id.empty()) structure_.id = std::string(Find(pairs_, key).value_or(""));
  }
  for (const std::string& key : keys_.targets) {
    const std::optional<absl::string_view> text = Find(pairs_, key);
    if (!text.has_value()) return Bad(absl::StrCat("missing target: no key ", Quoted(key)));
    double value = std::numeric_limits<double>::quiet_NaN();
    if (*text != "na" && !ParseValue(*text, &value)) {
      return Bad(absl::StrCat("wrong target: ", key, " is ", Quoted(*text), ", no number"));
    }
    structure_.targets.push_back(value);
  }
  return absl::OkStatus();
}

absl::StatusOr<Structure> Frame::Read(absl::Span<const absl::string_view> lines) {
  structure_.cartesian = true;
  STOKER_RETURN_IF_ERROR(ReadLattice());
  STOKER_RETURN_IF_ERROR(ReadPeriodic());
  STOKER_RETURN_IF_ERROR(ReadColumns());
  for (size_t i = 0; i < lines.size(); ++i) STOKER_RETURN_IF_ERROR(ReadAtom(i + 1, lines[i]));
  STOKER_RETURN_IF_ERROR(ReadKeys());
  return std::move(structure_);
}

}  // namespace

absl::Status ReadExtxyz(absl::string_view text, const std::string& path, uint64_t first_line, const RecordKeys& keys,
                        StructureSink sink) {
  TextLines lines(text);
  absl::string_view line;
  const auto place = [&] { return absl::StrCat(path, ":", first_line + lines.line() - 1); };
  while (lines.Next(&line)) {
    if (Trim(line).empty()) continue;
    const uint64_t start = first_line + lines.line() - 1;
    uint64_t atoms;
    if (!absl::SimpleAtoi(Trim(line), &atoms)) {
      return BadData(place(), absl::StrCat("not a number of atoms: ", Quoted(line), ", a frame should begin here"),
                     kCorrect);
    }
    const std::string frame_place = place();
    if (atoms > lines.bytes_left() / kLeastAtomBytes + 1) {
      return BadData(place(),
                     absl::StrCat("wrong counts: ", atoms, " atoms, more than the rest of the file could hold"),
                     kCorrect);
    }
    absl::string_view comment;
    std::vector<absl::string_view> atom_lines(atoms);
    bool whole = lines.Next(&comment);
    for (absl::string_view& atom_line : atom_lines) whole = whole && lines.Next(&atom_line);
    if (!whole) return BadData(place(), absl::StrCat("cut off: a frame of ", atoms, " atoms ends early"), kCorrect);
    STOKER_RETURN_IF_ERROR(sink(start, Frame(frame_place, comment, keys).Read(atom_lines)));
  }
  return absl::OkStatus();
}

}  // namespace stoker::ingest
