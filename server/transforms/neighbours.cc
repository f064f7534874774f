// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/neighbours.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/transforms/neighbour_search.h"
#include "server/transforms/neighbours_alignn.h"
#include "shared/base/status_macros.h"

namespace stoker::transforms {
namespace {

using Options = v1::IngestOptions::Crystal;

constexpr double kGrowth = 1.3;
constexpr double kNoLimit = std::numeric_limits<float>::max();

// The greatest float32 that is no more than `limit`.
float RoundedDown(double limit) {
  const auto rounded = static_cast<float>(limit);
  return rounded > limit ? std::nextafter(rounded, 0.0f) : rounded;
}

absl::Status Refuse(std::string_view field, std::string_view reason) {
  return absl::InvalidArgumentError(absl::StrFormat("ingest options: crystal.%s: %s", field, reason));
}

}  // namespace

absl::Status NeighbourOptions::Check() const {
  if (graph < Options::KNN || graph > Options::CGCNN) return Refuse("graph", "unknown to this version");
  if (graph != Options::RADIUS && (k < 1 || k > 1024)) return Refuse("k", absl::StrFormat("%d is not in [1, 1024]", k));
  if (!(tolerance >= 0 && tolerance <= 1))
    return Refuse("tolerance", absl::StrFormat("%g is not in [0, 1] Å", tolerance));
  if (!(cutoff > 0 && cutoff <= 100)) return Refuse("cutoff", absl::StrFormat("%g is not in (0, 100] Å", cutoff));
  if (max_neighbors < 0 || max_neighbors > std::numeric_limits<int32_t>::max()) {
    return Refuse("max_neighbors", absl::StrFormat("%d is out of range", max_neighbors));
  }
  if (max_neighbors != 0 && graph != Options::RADIUS) return Refuse("max_neighbors", "only for RADIUS; others have k");
  if (!(triplet_cutoff >= 0 && std::isfinite(triplet_cutoff))) {
    return Refuse("triplet_cutoff", absl::StrFormat("%g is not a distance in Å", triplet_cutoff));
  }
  if (directed && graph != Options::KNN) return Refuse("directed", "only for KNN");
  return absl::OkStatus();
}

// The scratch memory of a finder and the rules that fill it.
class NeighbourFinder::Work {
 public:
  explicit Work(const CrystalKernels* kernels) : search_(kernels) {}

  absl::StatusOr<NeighbourList> Find(const NeighbourOptions& options, const Crystal& crystal);

 private:
  absl::Status Choose(const NeighbourOptions& options);
  absl::StatusOr<size_t> Collect(int32_t atom);
  void Mirror();
  absl::Status ListKeys(const NeighbourOptions& options);
  void ListEdges(int64_t edge, int32_t source, absl::Span<const uint64_t> keys);
  absl::Status ListAlignn(const NeighbourOptions& options, const Crystal& crystal);
  absl::Status ReserveEdges(int64_t edges);
  NeighbourList Result(const NeighbourOptions& options);

  NeighbourSearch search_;
  AlignnNeighbours alignn_;

  // The keys that atom i chose are chosen_[begin_[i], begin_[i] + count_[i]); room for more ends at used_.
  Buffer<uint64_t> chosen_;
  size_t used_ = 0;
  Buffer<size_t> begin_, count_;
  Buffer<float> limit_;        // of the distances that atom i chooses
  Buffer<uint64_t> mirrored_;  // keys of edges to atoms that did not choose them, atom by atom
  Buffer<int32_t> unsolved_;
  int64_t close_ = 0;

  int64_t edges_ = 0;
  Buffer<int64_t> offset_;
  Buffer<int32_t> source_, destination_, image_, triplet_degree_;
  Buffer<float> r_, distance_;
};

// All keys of an atom, at the end of chosen_.
absl::StatusOr<size_t> NeighbourFinder::Work::Collect(int32_t atom) {
  STOKER_ASSIGN_OR_RETURN(const size_t count, search_.Collect(atom, chosen_, used_));
  close_ += NeighbourSearch::CountClose({chosen_.data() + used_, count});
  return count;
}

// Searches within a radius that grows until it shows each atom all that it chooses.
absl::Status NeighbourFinder::Work::Choose(const NeighbourOptions& options) {
  const bool table = options.graph == Options::CGCNN;
  const auto wanted = static_cast<size_t>(options.graph == Options::RADIUS ? options.max_neighbors : options.k);
  const double tolerance = table ? 0 : options.tolerance;
  const double cutoff = options.graph == Options::KNN ? kNoLimit : options.cutoff;
  // Atoms that are too close are to be seen whatever the cutoff.
  const double farthest = std::max(cutoff, NeighbourSearch::kClose);
  double radius = farthest;
  if (wanted > 0)
    radius = std::min(farthest, std::max(search_.RadiusFor(static_cast<int64_t>(wanted)), NeighbourSearch::kClose));
  limit_.Reserve(search_.atoms());
  unsolved_.Reserve(search_.atoms());
  size_t unsolved = 0;
  for (bool first = true; first || unsolved > 0; first = false, radius = std::min(kGrowth * radius, farthest)) {
    STOKER_RETURN_IF_ERROR(search_.SetRadius(radius));
    const bool everything = radius == farthest || radius > search_.diameter();
    const absl::Span<const int32_t> atoms = first ? search_.order() : unsolved_.span(unsolved);
    unsolved = 0;
    for (const int32_t atom : atoms) {  // unsolved_ is written behind where it is read
      const int64_t close = close_;
      STOKER_ASSIGN_OR_RETURN(size_t count, Collect(atom));
      const uint64_t* keys = chosen_.data() + used_;
      double limit = kNoLimit;
      if (wanted > 0 && count >= wanted) limit = NeighbourSearch::Distance(keys[wanted - 1]) + tolerance;
      if (limit > radius && !everything) {
        unsolved_[unsolved++] = atom;
        close_ = close;
        continue;
      }
      limit_[atom] = std::min(RoundedDown(limit), static_cast<float>(cutoff));
      while (count > 0 && NeighbourSearch::Distance(keys[count - 1]) > limit_[atom]) --count;
      if (table) count = std::min(count, wanted);
      begin_[atom] = used_;
      count_[atom] = count;
      used_ += count;
    }
  }
  return absl::OkStatus();
}

// Adds the reverse of each edge to the atoms that did not choose it: those whose limit it exceeds.
void NeighbourFinder::Work::Mirror() {
  const int64_t atoms = search_.atoms();
  offset_.Reserve(atoms + 2);
  std::fill_n(offset_.data(), atoms + 2, 0);
  const auto for_each_missing = [&](auto&& take) {
    for (int32_t i = 0; i < atoms; ++i) {
      for (size_t e = begin_[i]; e < begin_[i] + count_[i]; ++e) {
        const int32_t j = search_.Atom(chosen_[e]);
        if (NeighbourSearch::Distance(chosen_[e]) > limit_[j]) take(i, j, chosen_[e]);
      }
    }
  };
  for_each_missing([&](int32_t, int32_t j, uint64_t) { ++offset_[j + 2]; });
  for (int64_t i = 0; i < atoms; ++i) offset_[i + 2] += offset_[i + 1];
  mirrored_.Reserve(offset_[atoms + 1]);
  for_each_missing([&](int32_t i, int32_t j, uint64_t key) { mirrored_[offset_[j + 1]++] = search_.Reversed(i, key); });
  // All of them are longer than those that j chose.
  for (int64_t j = 0; j < atoms; ++j) std::sort(mirrored_.data() + offset_[j], mirrored_.data() + offset_[j + 1]);
}

absl::Status NeighbourFinder::Work::ReserveEdges(int64_t edges) {
  if (edges > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%d edges, more than 32 bits count; choose a smaller cutoff or k", edges));
  }
  edges_ = edges;
  for (Buffer<int32_t>* column : {&source_, &destination_}) column->Reserve(edges + kRowPadding);
  image_.Reserve(3 * (edges + kRowPadding));
  r_.Reserve(3 * (edges + kRowPadding));
  distance_.Reserve(edges + kRowPadding);
  return absl::OkStatus();
}

// From `edge` on.
void NeighbourFinder::Work::ListEdges(int64_t edge, int32_t source, absl::Span<const uint64_t> keys) {
  std::fill_n(&source_[edge], keys.size(), source);
  search_.ListEdges(source, keys, {&destination_[edge], &image_[3 * edge], &r_[3 * edge], &distance_[edge]});
}

absl::Status NeighbourFinder::Work::ListKeys(const NeighbourOptions& options) {
  const int64_t atoms = search_.atoms();
  const bool both_ways = options.graph == Options::KNN && !options.directed;
  const bool table = options.graph == Options::CGCNN;
  if (both_ways) Mirror();
  int64_t edges = both_ways ? offset_[atoms] : 0;
  for (int64_t i = 0; i < atoms; ++i) edges += table ? options.k : static_cast<int64_t>(count_[i]);
  STOKER_RETURN_IF_ERROR(ReserveEdges(edges));
  offset_.Reserve(atoms + 2, both_ways ? atoms + 2 : 0);
  int64_t edge = 0, mirrored = 0;
  for (int32_t i = 0; i < atoms; ++i) {
    const int64_t begin = edge;
    ListEdges(edge, i, {chosen_.data() + begin_[i], count_[i]});
    edge += static_cast<int64_t>(count_[i]);
    if (both_ways) {
      const int64_t count = offset_[i + 1] - mirrored;  // what is behind i is not yet overwritten
      ListEdges(edge, i, {mirrored_.data() + mirrored, static_cast<size_t>(count)});
      edge += count;
      mirrored += count;
    }
    for (; table && edge < begin + options.k; ++edge) {
      const auto distance = static_cast<float>(options.cutoff + 1);
      source_[edge] = i;
      destination_[edge] = 0;
      distance_[edge] = r_[3 * edge] = distance;
      r_[3 * edge + 1] = r_[3 * edge + 2] = 0;
      std::fill_n(&image_[3 * edge], 3, 0);
    }
    offset_[i] = begin;
  }
  offset_[atoms] = edge;
  return absl::OkStatus();
}

absl::Status NeighbourFinder::Work::ListAlignn(const NeighbourOptions& options, const Crystal& crystal) {
  STOKER_ASSIGN_OR_RETURN(const absl::Span<const AlignnEdge> edges,
                          alignn_.Find(crystal, options.k, options.cutoff, search_));
  STOKER_RETURN_IF_ERROR(ReserveEdges(static_cast<int64_t>(edges.size())));
  close_ = alignn_.close_pairs() * 2;
  offset_.Reserve(search_.atoms() + 1);
  std::fill_n(offset_.data(), search_.atoms() + 1, 0);
  for (size_t e = 0; e < edges.size(); ++e) {
    source_[e] = edges[e].source;
    destination_[e] = edges[e].destination;
    std::copy_n(edges[e].image.begin(), 3, &image_[3 * e]);
    for (int a = 0; a < 3; ++a) r_[3 * e + a] = static_cast<float>(edges[e].r[a]);
    distance_[e] = edges[e].distance;
    ++offset_[edges[e].source + 1];
  }
  for (int64_t i = 0; i < search_.atoms(); ++i) offset_[i + 1] += offset_[i];
  return absl::OkStatus();
}

NeighbourList NeighbourFinder::Work::Result(const NeighbourOptions& options) {
  const int64_t atoms = search_.atoms();
  triplet_degree_.Reserve(atoms);
  const auto cutoff = static_cast<float>(options.triplet_cutoff);
  for (int64_t i = 0; i < atoms; ++i) {
    const float* first = distance_.data() + offset_[i];
    const float* last = distance_.data() + offset_[i + 1];
    const float* end = options.triplet_cutoff == 0 ? last : std::upper_bound(first, last, cutoff);
    triplet_degree_[i] = static_cast<int32_t>(end - first);
  }
  NeighbourList list;
  list.offset = offset_.span(atoms + 1);
  list.source = source_.span(edges_);
  list.destination = destination_.span(edges_);
  list.image = image_.span(3 * edges_);
  list.r = r_.span(3 * edges_);
  list.distance = distance_.span(edges_);
  list.triplet_degree = triplet_degree_.span(atoms);
  list.close_pairs = close_ / 2;  // each was seen from both ends
  return list;
}

absl::StatusOr<NeighbourList> NeighbourFinder::Work::Find(const NeighbourOptions& options, const Crystal& crystal) {
  used_ = 0;
  close_ = 0;
  STOKER_RETURN_IF_ERROR(search_.Begin(crystal));
  begin_.Reserve(search_.atoms());
  count_.Reserve(search_.atoms());
  if (options.graph == Options::ALIGNN) {
    STOKER_RETURN_IF_ERROR(ListAlignn(options, crystal));
  } else {
    STOKER_RETURN_IF_ERROR(Choose(options));
    STOKER_RETURN_IF_ERROR(ListKeys(options));
  }
  return Result(options);
}

std::vector<std::string> CrystalPaths() {
  std::vector<std::string> names;
  for (const CrystalKernels* kernels : SupportedCrystalKernels()) names.emplace_back(kernels->name);
  return names;
}

absl::StatusOr<NeighbourFinder> NeighbourFinder::Create(const NeighbourOptions& options, std::string_view path) {
  STOKER_RETURN_IF_ERROR(options.Check());
  const CrystalKernels* kernels = FindCrystalKernels(path);
  if (kernels == nullptr) {
    return absl::NotFoundError(
        absl::StrFormat("no \"%s\" kernels on this machine; it has %s", path, absl::StrJoin(CrystalPaths(), ", ")));
  }
  return NeighbourFinder(options, std::make_unique<Work>(kernels));
}

NeighbourFinder::NeighbourFinder(const NeighbourOptions& options, std::unique_ptr<Work> work)
    : options_(options), work_(std::move(work)) {}
NeighbourFinder::NeighbourFinder(NeighbourFinder&&) noexcept = default;
NeighbourFinder& NeighbourFinder::operator=(NeighbourFinder&&) noexcept = default;
NeighbourFinder::~NeighbourFinder() = default;

absl::StatusOr<NeighbourList> NeighbourFinder::Find(const Crystal& crystal) { return work_->Find(options_, crystal); }

}  // namespace stoker::transforms
