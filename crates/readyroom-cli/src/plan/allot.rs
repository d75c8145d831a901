//! How many instances each pool gets when all of them share one total.

/// Splits `total` instances over pools with these numbers of jobs. Each pool gets at least one and no more than it has
/// jobs; what is left goes, one by one, to the pool with the most jobs an instance. Where there are more pools than
/// instances each gets one, and the caller lets them run one after the other.
pub fn allot(total: usize, jobs: &[usize]) -> Vec<usize> {
    let mut instances = vec![1; jobs.len()];
    for _ in jobs.len()..total {
        let neediest = (0..jobs.len())
            .filter(|&pool| instances[pool] < jobs[pool])
            // Compared as fractions; of equal ones the first wins.
            .reduce(|best, pool| if jobs[pool] * instances[best] > jobs[best] * instances[pool] { pool } else { best });
        match neediest {
            Some(pool) => instances[pool] += 1,
            None => break,
        }
    }
    instances
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_follow_the_work() {
        assert_eq!(allot(3, &[10]), [3]);
        assert_eq!(allot(3, &[2]), [2]);
        assert_eq!(allot(4, &[30, 10]), [3, 1]);
        assert_eq!(allot(6, &[1, 1, 100]), [1, 1, 4]);
        assert_eq!(allot(2, &[5, 5, 5]), [1, 1, 1]);
        assert_eq!(allot(5, &[]), Vec::<usize>::new());
    }

    proptest! {
        #[test]
        fn no_pool_starves_and_no_instance_is_too_many(
            total in 1usize..50,
            jobs in prop::collection::vec(1usize..40, 1..20),
        ) {
            let instances = allot(total, &jobs);
            prop_assert!(instances.iter().zip(&jobs).all(|(&instances, &jobs)| 1 <= instances && instances <= jobs));
            let sum: usize = instances.iter().sum();
            if jobs.len() <= total {
                prop_assert_eq!(sum, total.min(jobs.iter().sum()));
            } else {
                prop_assert_eq!(sum, jobs.len());
            }
        }
    }
}
