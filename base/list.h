/* base/list.h - doubly linked lists through a node inside the listed struct. No allocation; insert and remove anywhere in
 * constant time. A node is in one list at most; list_init makes a node "in no list", and list_remove leaves it so. nofpu. */
#ifndef BASE_LIST_H
#define BASE_LIST_H
#include <stdbool.h>
#include <stddef.h>

struct list_node {
    struct list_node *next, *prev;
};
/* The struct that holds the node. */
#define list_entry(node, type, member) ((type *)((char *)(node)-offsetof(type, member)))
/* for each node n of a list; the body may remove n, and nothing else. */
#define list_for_each(n, head)                                                                                         \
    for (struct list_node *n = (head)->next, *n##_next = n->next; n != (head); n = n##_next, n##_next = n->next)

/* Makes an empty list head, or a node that is in no list. */
static inline void list_init(struct list_node *n) { n->next = n->prev = n; }
static inline bool list_is_empty(const struct list_node *head) { return head->next == head; }
static inline bool list_is_linked(const struct list_node *n) { return n->next != n; }
static inline void list_insert_after(struct list_node *at, struct list_node *n)
{
    n->next = at->next;
    n->prev = at;
    at->next->prev = n;
    at->next = n;
}
static inline void list_push_front(struct list_node *head, struct list_node *n) { list_insert_after(head, n); }
static inline void list_push_back(struct list_node *head, struct list_node *n) { list_insert_after(head->prev, n); }
static inline void list_remove(struct list_node *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    list_init(n);
}
/* First node, taken out, or NULL. */
static inline struct list_node *list_pop_front(struct list_node *head)
{
    struct list_node *n = head->next;
    if (n == head)
        return NULL;
    list_remove(n);
    return n;
}
#endif
