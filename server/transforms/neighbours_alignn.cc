// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/neighbours_alignn.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <tuple>

#include "absl/base/casts.h"
#include "shared/base/status_macros.h"

namespace stoker::transforms {
namespace {

constexpr double kTwoPi = 2 * std::numbers::pi;
// jarvis' bond_tol.
constexpr double kBondTolerance = 0.15;

// As numpy.around.
double Around(double value, double scale) { return std::nearbyint(value * scale) / scale; }

}  // namespace

absl::Status AlignnNeighbours::Read(const Crystal& crystal) {
  if (!crystal.periodic[0] || !crystal.periodic[1] || !crystal.periodic[2]) {
    return absl::InvalidArgumentError(
        "ingest options: crystal.graph: ALIGNN knows only what is periodic in three directions; choose KNN for the "
        "rest");
  }
  lattice_ = crystal.lattice;
  longest_ = 0;
  for (int a = 0; a < 3; ++a) {
    for (int c = 0; c < 3; ++c) rounded_[a][c] = Around(lattice_[a][c], 1e5);
    longest_ = std::max(longest_, Around(Length(rounded_[a]), 1e6));
  }
  const double volume = Dot(rounded_[0], Cross(rounded_[1], rounded_[2]));
  if (volume == 0) return absl::InvalidArgumentError("lattice: no volume once rounded to 5 decimals, as ALIGNN does");
  for (int a = 0; a < 3; ++a) {
    Vector3 reciprocal = Cross(rounded_[(a + 1) % 3], rounded_[(a + 2) % 3]);
    for (double& component : reciprocal) component = Around(kTwoPi * component / volume, 1e5);
    reciprocal_[a] = Around(Length(reciprocal), 1e6);
  }
  const int64_t atoms = static_cast<int64_t>(crystal.fraction.size() / 3);
  points_.Reserve(3 * atoms);
  low_ = high_ = {crystal.fraction[0], crystal.fraction[1], crystal.fraction[2]};
  for (int64_t i = 0; i < atoms; ++i) {
    const Vector3 fraction = {crystal.fraction[3 * i], crystal.fraction[3 * i + 1], crystal.fraction[3 * i + 2]};
    const Vector3 point = TimesMatrix(fraction, rounded_);
    std::copy(point.begin(), point.end(), &points_[3 * i]);
    for (int a = 0; a < 3; ++a) {
      low_[a] = std::min(low_[a], fraction[a]);
      high_[a] = std::max(high_[a], fraction[a]);
    }
  }
  double farthest = 1;
  for (int a = 0; a < 3; ++a) farthest = std::max({farthest, std::abs(low_[a]), std::abs(high_[a])});
  // Two atoms, three vectors each wrong by half a unit of the fifth decimal in each of three components.
  margin_ = 2 * 3 * 0.5e-5 * std::numbers::sqrt3 * farthest + 1e-9;
  return absl::OkStatus();
}

void AlignnNeighbours::SetBox(double cutoff) {
  for (int a = 0; a < 3; ++a) {
    const double reach = std::ceil((cutoff + kBondTolerance) * reciprocal_[a] / kTwoPi);
    box_low_[a] = static_cast<int32_t>(std::floor(low_[a]) - reach);
    box_high_[a] = static_cast<int32_t>(std::ceil(high_[a]) + reach);
  }
}

absl::Status AlignnNeighbours::ReadCandidates(int32_t atom, double radius, NeighbourSearch& search) {
  STOKER_ASSIGN_OR_RETURN(const size_t count, search.Collect(atom, keys_, 0));
  close_ += NeighbourSearch::CountClose(keys_.span(count));
  candidates_.clear();
  const double* from = &points_[3 * atom];
  for (size_t i = 0; i < count; ++i) {
    Candidate candidate = {0, search.ImageOf(atom, keys_[i]), search.Atom(keys_[i])};
    Vector3 image;
    bool in_box = true;
    for (int a = 0; a < 3; ++a) {
      image[a] = candidate.image[a];
      in_box &= candidate.image[a] >= box_low_[a] && candidate.image[a] < box_high_[a];
    }
    if (!in_box) continue;
    const Vector3 shift = TimesMatrix(image, lattice_);
    const double* to = &points_[3 * candidate.atom];
    candidate.distance =
        Length({(shift[0] + to[0]) - from[0], (shift[1] + to[1]) - from[1], (shift[2] + to[2]) - from[2]});
    if (candidate.distance > kBondTolerance && candidate.distance <= radius) candidates_.push_back(candidate);
  }
  return absl::OkStatus();
}

void AlignnNeighbours::AddPairs(int32_t atom, size_t k) {
  // jarvis lists image by image and in each atom by atom, and sorts that by distance, stably.
  std::sort(candidates_.begin(), candidates_.end());
  const double limit = candidates_[k - 1].distance;
  for (const Candidate& other : candidates_) {
    if (other.distance > limit) break;
    Pair pair = {atom, other.atom, other.image};
    if (pair.high < pair.low) {
      std::swap(pair.low, pair.high);
      for (int32_t& whole : pair.image) whole = -whole;
    }
    pairs_.push_back(pair);
  }
}

absl::StatusOr<bool> AlignnNeighbours::Choose(const Crystal& crystal, size_t k, double radius,
                                              NeighbourSearch& search) {
  pairs_.clear();
  close_ = 0;
  STOKER_RETURN_IF_ERROR(search.SetRadius(std::max(radius, NeighbourSearch::kClose) + margin_));
  for (const int32_t atom : search.order()) {
    STOKER_RETURN_IF_ERROR(ReadCandidates(atom, radius, search));
    if (candidates_.size() < k) return false;
    AddPairs(atom, k);
  }
  return true;
}

// By their atom of lower number first, which leaves little to sort.
void AlignnNeighbours::SortPairs(size_t atoms) {
  first_.assign(atoms + 1, 0);
  for (const Pair& pair : pairs_) ++first_[static_cast<size_t>(pair.low) + 1];
  for (size_t i = 0; i < atoms; ++i) first_[i + 1] += first_[i];
  sorted_pairs_.resize(pairs_.size());
  for (const Pair& pair : pairs_) sorted_pairs_[first_[static_cast<size_t>(pair.low)]++] = pair;
  size_t begin = 0;  // first_[i] is now where those of atom i end
  for (size_t i = 0; i < atoms; begin = first_[i++]) {
    std::sort(sorted_pairs_.begin() + static_cast<ptrdiff_t>(begin),
              sorted_pairs_.begin() + static_cast<ptrdiff_t>(first_[i]));
  }
  sorted_pairs_.erase(std::unique(sorted_pairs_.begin(), sorted_pairs_.end()), sorted_pairs_.end());
}

void AlignnNeighbours::ListEdges(const Crystal& crystal) {
  SortPairs(crystal.fraction.size() / 3);
  edges_.clear();
  order_.clear();
  const auto add = [&](const AlignnEdge& edge) {
    // The bits of a distance, which is not negative, are in its order.
    const uint64_t place = uint64_t{static_cast<uint32_t>(edge.source)} << 32 | absl::bit_cast<uint32_t>(edge.distance);
    order_.push_back({place, static_cast<uint32_t>(edges_.size())});
    edges_.push_back(edge);
  };
  for (const Pair& pair : sorted_pairs_) {
    Vector3 between;
    for (int a = 0; a < 3; ++a) {
      between[a] = crystal.fraction[3 * pair.high + a] + pair.image[a] - crystal.fraction[3 * pair.low + a];
    }
    const Vector3 r = TimesMatrix(between, rounded_);
    const auto distance = static_cast<float>(Length(r));
    add({pair.low, pair.high, pair.image, distance, r});
    add({pair.high, pair.low, {-pair.image[0], -pair.image[1], -pair.image[2]}, distance, {-r[0], -r[1], -r[2]}});
  }
  std::sort(order_.begin(), order_.end(), [&](const Place& a, const Place& b) {
    if (a.place != b.place) return a.place < b.place;
    const AlignnEdge &x = edges_[a.edge], &y = edges_[b.edge];
    return std::tie(x.destination, x.image) < std::tie(y.destination, y.image);
  });
  sorted_edges_.clear();
  for (const Place& place : order_) sorted_edges_.push_back(edges_[place.edge]);
}

absl::StatusOr<absl::Span<const AlignnEdge>> AlignnNeighbours::Find(const Crystal& crystal, int64_t k, double cutoff,
                                                                    NeighbourSearch& search) {
  STOKER_RETURN_IF_ERROR(Read(crystal));
  const auto wanted = static_cast<size_t>(k);
  bool chosen = false;
  while (!chosen) {
    SetBox(cutoff);
    // The box is that of the cutoff; within it a smaller radius shows the same k nearest.
    for (double radius = std::min(cutoff, search.RadiusFor(k)); !chosen; radius = std::min(cutoff, 1.3 * radius)) {
      STOKER_ASSIGN_OR_RETURN(chosen, Choose(crystal, wanted, radius, search));
      if (radius == cutoff) break;
    }
    if (!chosen) cutoff = cutoff < longest_ ? longest_ : 2 * cutoff;
  }
  ListEdges(crystal);
  return absl::Span<const AlignnEdge>(sorted_edges_);
}

}  // namespace stoker::transforms
