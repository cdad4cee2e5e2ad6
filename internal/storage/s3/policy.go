package s3

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Policy returns, as JSON, the smallest IAM policy with which backupd works in
// the bucket and prefix of o. Only a machine that removes old snapshots needs
// mayDelete: without it, stolen credentials destroy nothing.
func Policy(o Options, mayDelete bool) (string, error) {
	prefix := strings.Trim(o.Prefix, "/")
	if prefix != "" {
		prefix += "/"
	}
	arn := "arn:" + partition(o.Region) + ":"
	bucket := arn + "s3:::" + o.Bucket
	list := statement{Sid: "List", Effect: "Allow", Action: []string{"s3:ListBucket"}, Resource: bucket}
	if prefix != "" {
		list.Condition = condition{"StringLike": {"s3:prefix": prefix + "*"}}
	}
	objects := statement{
		Sid: "ReadAndWrite", Effect: "Allow", Resource: bucket + "/" + prefix + "*",
		Action: []string{"s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"},
	}
	p := policy{Version: "2012-10-17", Statement: []statement{
		list, objects,
		// Only the check asks for these, and it does not need them.
		{
			Sid: "Check", Effect: "Allow", Resource: bucket,
			Action: []string{
				"s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration", "s3:GetLifecycleConfiguration",
			},
		},
	}}
	if mayDelete {
		p.Statement = append(p.Statement,
			statement{Sid: "Delete", Effect: "Allow", Action: []string{"s3:DeleteObject"}, Resource: objects.Resource},
			// It knows no condition on the prefix.
			statement{
				Sid: "FindOrphanedUploads", Effect: "Allow", Resource: bucket,
				Action: []string{"s3:ListBucketMultipartUploads"},
			},
		)
	}
	if o.SSE == SSEKMS && o.SSEKMSKeyID != "" { // the account's own key needs no permission
		p.Statement = append(p.Statement, kmsStatement(arn, o.SSEKMSKeyID))
	}
	raw, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return "", fmt.Errorf("encode policy: %w", err)
	}
	return string(raw), nil
}

type policy struct {
	Version   string
	Statement []statement
}

type statement struct {
	Sid       string
	Effect    string
	Action    []string
	Resource  string
	Condition condition `json:",omitempty"`
}

type condition map[string]map[string]string

// partition is the part of Amazon's cloud that a region belongs to. Other
// services know only "aws".
func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

// kmsStatement allows a key, given by its ARN, its alias or its bare id.
func kmsStatement(arn, key string) statement {
	s := statement{
		Sid: "EncryptionKey", Effect: "Allow",
		Action: []string{"kms:GenerateDataKey", "kms:Decrypt"}, // decrypting also joins the parts of an upload
	}
	_, alias, isAlias := strings.Cut(key, "alias/")
	switch {
	case isAlias:
		s.Resource, s.Condition = "*", condition{"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/" + alias}}
	case strings.HasPrefix(key, "arn:"):
		s.Resource = key
	default:
		s.Resource = arn + "kms:*:*:key/" + key
	}
	return s
}
